//! The grammar of the command line and its help.

use crate::config::ServeFlags;
use crate::exit::ExitStatus;
use clap::{Args, Parser};

const EXAMPLES: &str = "\
Examples:
  deltadb serve --data-dir /var/lib/deltadb
  echo '{\"name\":\"Ada\"}' | deltadb put people ada
  deltadb get people ada | jq .name
  deltadb list people --prefix a --documents | gzip > people.ndjson.gz
  deltadb put people ada ada.json --if-absent || test $? -eq 4";

/// DeltaDatabase: JSON documents, validated, encrypted and on stable storage before the reply.
#[derive(Parser)]
#[command(name = "deltadb", version, max_term_width = 110, after_help = after_help(), propagate_version = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub subcommand: Subcommand,
}

#[derive(clap::Subcommand)]
pub(super) enum Subcommand {
    /// Run the server
    #[command(after_help = SERVE_HELP)]
    Serve(Box<ServeFlags>),
    /// Write one document
    Put(PutArguments),
    /// Print one document, byte for byte as it was written
    Get(GetArguments),
    /// Remove one document
    Delete(DeleteArguments),
    /// Print the keys of a schema in order, one a line
    List(ListArguments),
    /// Manage JSON Schema templates
    Schema(SchemaArguments),
    /// Print the server's figures as JSON
    Stats(PlainArguments),
    /// Ask the server for a sign of life
    Ping(PlainArguments),
    /// Make a new data key the active one, while the server runs
    RotateKey(PlainArguments),
    /// Wrap the data keys of a stopped store with another root key
    #[command(after_help = REWRAP_HELP)]
    Rewrap(RewrapArguments),
}

const SERVE_HELP: &str = "\
Each flag has a variable DELTA_<FLAG> (DELTA_DATA_DIR, DELTA_REST_ADDR, …); $ADMIN_KEY, $MASTER_KEY and \
$MASTER_KEY_FILE are heard too. A flag counts over a variable, a variable over the file of --config, the file over \
the default. A secret given by two means is an error. SIZE is like 512MiB, DURATION like 250ms, 30s, 5m, 24h or 7d.

Stop the server with SIGTERM or Ctrl-C: it finishes what it accepted. A second signal stops it at once.";

const REWRAP_HELP: &str = "\
The server must be stopped. Only the keyring is rewritten; documents stay as they are. Keep the old root key until \
the command has ended with status 0, and as long as you keep backups of the old keyring. Prints the new root key's id.

Example:
  (umask 077; head -c 32 /dev/urandom | base64 > /etc/deltadb/new.key)
  deltadb rewrap --data-dir /var/lib/deltadb --new-master-key-file /etc/deltadb/new.key";

/// Which server, and as whom.
#[derive(Args)]
pub(super) struct ClientFlags {
    /// The server's wire address, or unix:PATH
    #[arg(long, value_name = "HOST:PORT", env = "DELTA_ADDR", default_value = "127.0.0.1:7400")]
    pub addr: String,
    /// The key, or $DELTA_KEY. In the process list others can see it: prefer --key-file
    #[arg(long = "key", value_name = "KEY")]
    pub credential: Option<String>,
    /// File that holds the key, or $DELTA_KEY_FILE [default, for a server on this machine: DATA_DIR/admin.key]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<String>,
    /// Where a server on this machine keeps its data, to find its admin.key
    #[arg(long, value_name = "DIR", env = "DELTA_DATA_DIR", default_value = crate::config::DATA_DIR_DEFAULT)]
    pub data_dir: String,
    /// How long to wait for the connection and for each reply
    #[arg(long, value_name = "DURATION", env = "DELTA_TIMEOUT", default_value = "10s")]
    pub timeout: String,
    /// Say more, on stderr
    #[arg(long, short)]
    pub verbose: bool,
}

/// What must hold for a write to be applied.
#[derive(Args)]
#[group(multiple = false)]
pub(super) struct ConditionFlags {
    /// Only if the document is at this version
    #[arg(long, value_name = "VERSION")]
    pub if_version: Option<u64>,
    /// Only if there is no such document
    #[arg(long)]
    pub if_absent: bool,
}

#[derive(Args)]
pub(super) struct PutArguments {
    /// The schema id
    pub schema: String,
    /// The entity key
    pub key: String,
    /// The document; - is standard input
    #[arg(default_value = "-")]
    pub file: String,
    #[command(flatten)]
    pub condition: ConditionFlags,
    /// Print the new version as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub client: ClientFlags,
}

#[derive(Args)]
pub(super) struct GetArguments {
    /// The schema id
    pub schema: String,
    /// The entity key
    pub key: String,
    #[command(flatten)]
    pub client: ClientFlags,
}

#[derive(Args)]
pub(super) struct DeleteArguments {
    /// The schema id
    pub schema: String,
    /// The entity key
    pub key: String,
    /// Only if the document is at this version
    #[arg(long, value_name = "VERSION")]
    pub if_version: Option<u64>,
    #[command(flatten)]
    pub client: ClientFlags,
}

#[derive(Args)]
pub(super) struct ListArguments {
    /// The schema id
    pub schema: String,
    /// Only keys that begin so
    #[arg(long, default_value = "", hide_default_value = true)]
    pub prefix: String,
    /// Only keys behind this one
    #[arg(long, value_name = "KEY")]
    pub after: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// One JSON object a line, with key, version and document
    #[arg(long)]
    pub documents: bool,
    /// One JSON object a line, with key and version
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub client: ClientFlags,
}

#[derive(Args)]
pub(super) struct SchemaArguments {
    #[command(subcommand)]
    pub action: SchemaAction,
}

#[derive(clap::Subcommand)]
pub(super) enum SchemaAction {
    /// Store a JSON Schema: from now on, documents written under this id must satisfy it
    Put {
        /// The schema id
        id: String,
        /// The JSON Schema; - is standard input
        #[arg(default_value = "-")]
        file: String,
        #[command(flatten)]
        client: ClientFlags,
    },
    /// Print a JSON Schema
    Get {
        /// The schema id
        id: String,
        #[command(flatten)]
        client: ClientFlags,
    },
    /// Remove a JSON Schema; documents stay, and are no longer checked
    Delete {
        /// The schema id
        id: String,
        #[command(flatten)]
        client: ClientFlags,
    },
    /// Print the ids of all JSON Schemas, one a line
    List {
        #[command(flatten)]
        client: ClientFlags,
    },
}

#[derive(Args)]
pub(super) struct PlainArguments {
    #[command(flatten)]
    pub client: ClientFlags,
}

#[derive(Args)]
pub(super) struct RewrapArguments {
    /// The data directory
    #[arg(long, value_name = "DIR", env = "DELTA_DATA_DIR", alias = "shared-fs",
          default_value = crate::config::DATA_DIR_DEFAULT)]
    pub data_dir: String,
    /// File that holds the present root key, or $MASTER_KEY_FILE or $MASTER_KEY [default: DATA_DIR/master.key]
    #[arg(long, value_name = "FILE")]
    pub master_key_file: Option<String>,
    /// File that holds the new root key
    #[arg(long, value_name = "FILE")]
    pub new_master_key_file: String,
    /// The id the new root key must have
    #[arg(long, value_name = "ID")]
    pub key_id: Option<String>,
}

fn after_help() -> String {
    let mut text = format!("{EXAMPLES}\n\nExit status:\n");
    for status in ExitStatus::ALL {
        text.push_str(&format!("  {:>3}  {}\n", status.number(), status.meaning()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_holds_together_and_help_lists_every_status() {
        Arguments::command().debug_assert();
        let help = Arguments::command().render_long_help().to_string();
        for status in ExitStatus::ALL {
            assert!(help.contains(status.meaning()), "{help}");
        }
    }

    #[test]
    fn every_variable_that_clients_hear_is_known_to_the_server() {
        let command = Arguments::command();
        let mut heard: Vec<&str> = Vec::new();
        let mut commands: Vec<&clap::Command> = vec![&command];
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands());
            heard.extend(command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()));
        }
        assert!(heard.contains(&"DELTA_ADDR"));
        let unknown = crate::config::unknown_variables(heard.into_iter().map(Into::into));
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn two_conditions_are_refused() {
        let both = ["deltadb", "put", "s", "k", "--if-absent", "--if-version", "3"];
        assert!(Arguments::try_parse_from(both).is_err());
        assert!(Arguments::try_parse_from(&both[..5]).is_ok());
    }
}

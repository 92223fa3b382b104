//! The start block: what a person needs to know, in one short block on standard output. Never a key.

use super::admin_key::AdminKey;
use super::plan::Plan;
use super::prepare::Prepared;
use crate::config::Config;
use std::io::Write;

/// Prints it. Standard output may be closed: the server serves all the same.
pub(super) fn print(config: &Config, plan: &Plan, prepared: &Prepared, admin_key: &AdminKey) {
    let _ = std::io::stdout().lock().write_all(render(config, plan, prepared, admin_key).as_bytes());
    for warning in &prepared.warnings {
        tracing::warn!("{warning}");
    }
}

fn render(config: &Config, plan: &Plan, prepared: &Prepared, admin_key: &AdminKey) -> String {
    let (http, wire) = plan.addresses();
    let mut lines = vec![
        format!("DeltaDatabase {}", env!("CARGO_PKG_VERSION")),
        format!("  rest    http://{http}"),
        format!("  wire    {wire}"),
    ];
    if let Some(path) = &config.wire_socket {
        lines.push(format!("  socket  {}", path.display()));
    }
    lines.push(format!("  shards  {}", plan.shard_directories.len()));
    lines.push(format!(
        "  store   {} ({})",
        hex::encode(plan.store_id),
        if prepared.created { "new" } else { "existing" }
    ));
    lines.push(format!("  data    {} (log backend)", config.data_dir.display()));
    lines.push(format!(
        "  keys    root key {} from {}; admin key {}",
        prepared.root_key_id, prepared.root_key_origin, admin_key.origin
    ));
    if config.salvage {
        lines.push("  salvage read-only, with what is intact".into());
    }
    lines.push("ready: stop with Ctrl-C or SIGTERM; a second signal stops at once".into());
    lines.join("\n") + "\n"
}

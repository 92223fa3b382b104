//! Figures of the process, as /proc shows them. What cannot be read is left out, never guessed.

use std::fs;

/// Memory, time and descriptors of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Address space.
    pub virtual_bytes: Option<u64>,
    /// User and system time since the start.
    pub cpu_seconds: Option<f64>,
    /// Start, in seconds since the Unix epoch.
    pub start_unix_seconds: Option<f64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Most file descriptors it may open.
    pub max_fds: Option<u64>,
}

/// Reads them now.
pub fn read() -> ProcessFigures {
    let mut figures = fs::read_to_string("/proc/self/stat").ok().and_then(|text| parse_stat(&text)).unwrap_or_default();
    let boot_seconds = fs::read_to_string("/proc/stat").ok().and_then(|text| parse_boot(&text));
    figures.start_unix_seconds = figures.start_unix_seconds.zip(boot_seconds).map(|(start, boot)| start + boot);
    // Reading the directory opens a descriptor of its own.
    figures.open_fds = fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1));
    figures.max_fds = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    figures
}

/// `/proc/self/stat`; the start is still counted from boot.
fn parse_stat(text: &str) -> Option<ProcessFigures> {
    // The command name is in parentheses and may hold anything, parentheses included; fields count from after it.
    let (_, after) = text.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    // proc(5) numbers fields from 1; the state, field 3, is the first here.
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    Some(ProcessFigures {
        resident_bytes: field(24).map(|pages| pages * rustix::param::page_size() as u64),
        virtual_bytes: field(23),
        cpu_seconds: field(14).zip(field(15)).map(|(user, system)| (user + system) as f64 / ticks_per_second),
        start_unix_seconds: field(22).map(|ticks| ticks as f64 / ticks_per_second),
        threads: field(20),
        open_fds: None,
        max_fds: None,
    })
}

/// The boot time in `/proc/stat`.
fn parse_boot(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_cannot_shift_the_fields() {
        let text =
            "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 5 0 1000 8192000 12 18446744073709551615";
        let figures = parse_stat(text).unwrap();
        assert_eq!((figures.threads, figures.virtual_bytes), (Some(5), Some(8192000)));
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(figures.cpu_seconds, Some(300.0 / ticks));
        assert_eq!(figures.resident_bytes, Some(12 * rustix::param::page_size() as u64));
        assert_eq!(parse_boot("cpu 1 2\nbtime 1700000000\nprocesses 3"), Some(1.7e9));
    }

    #[test]
    fn this_process_has_figures() {
        let figures = read();
        assert!(figures.resident_bytes > Some(1 << 20) && figures.open_fds > Some(2));
        assert!(figures.start_unix_seconds > Some(1e9));
    }
}

//! Stops the process when state may be half applied.

/// While alive, a panic on this thread ends the process. The panic itself has been printed by then.
pub(super) struct AbortOnPanic(pub(super) &'static str);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let room = self.0;
            tracing::error!("a panic in the {room} leaves state that must not be served: stopping; restart recovers");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    /// Tells the child that it is the one to panic.
    const CHILD: &str = "DELTADB_TEST_PANICS";

    #[test]
    fn a_panic_ends_the_process_even_where_it_would_be_caught() {
        if std::env::var_os(CHILD).is_some() {
            let _ = std::panic::catch_unwind(|| {
                let _fatal = AbortOnPanic("test");
                panic!("on purpose");
            });
            std::process::exit(0);
        }
        let name = "engine::fatal::tests::a_panic_ends_the_process_even_where_it_would_be_caught";
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([name, "--exact"]).env(CHILD, "1").stdout(Stdio::null()).stderr(Stdio::null());
        assert_eq!(child.status().unwrap().signal(), Some(libc::SIGABRT));
    }
}

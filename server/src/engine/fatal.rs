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

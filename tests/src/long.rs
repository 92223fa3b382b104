//! How much of a repeated test is done: what fits the everyday run, or what the nightly command asks for.

/// The variable that asks for the long form.
pub const VARIABLE: &str = "DELTA_TESTS_LONG";

/// Whether the long form is asked for.
pub fn is_asked_for() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| value != "0" && !value.is_empty())
}

/// One of two counts.
pub fn rounds(everyday: usize, nightly: usize) -> usize {
    if is_asked_for() { nightly } else { everyday }
}

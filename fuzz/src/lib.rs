//! A parser of `testkit::parsers` as a program for libFuzzer.
//!
//! Owns: finding the parser by the name of the program. Refuses to know: what is parsed, and what
//! must hold.

#[doc(hidden)]
pub use libfuzzer_sys;

/// The program of the parser that has its name.
#[macro_export]
macro_rules! program {
    () => {
        use $crate::libfuzzer_sys;
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::read(env!("CARGO_BIN_NAME"), bytes));
    };
}

/// Feeds the parser of that name.
///
/// # Panics
/// When there is none, or a property of it does not hold.
pub fn read(name: &str, bytes: &[u8]) {
    let parser = testkit::parsers::named(name).expect("a program is called as its parser");
    (parser.read)(bytes);
}

//! Owns: the program of the parser `alert_rules`. Refuses to know: what that parser is.
#![no_main]

tai_fuzz::program!();

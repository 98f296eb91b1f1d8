//! Owns: the program of the parser `external_alerts`. Refuses to know: what that parser is.
#![no_main]

tai_fuzz::program!();

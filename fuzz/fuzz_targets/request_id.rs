//! Owns: the program of the parser `request_id`. Refuses to know: what that parser is.
#![no_main]

tai_fuzz::program!();

//! Owns: the program of the parser `json`. Refuses to know: what that parser is.
#![no_main]

tai_fuzz::program!();

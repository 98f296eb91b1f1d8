//! Owns: the program of the parser `condition`. Refuses to know: what that parser is.
#![no_main]

tai_fuzz::program!();

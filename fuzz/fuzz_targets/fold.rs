//! Owns: the program of the parser `fold`. Refuses to know: what that parser is.
#![no_main]

tai_fuzz::program!();

//! Owns: the program of the parser `head`. Refuses to know: what that parser is.
#![no_main]

tai_fuzz::program!();

//! Owns: the program of the parser `admin`. Refuses to know: what that parser is.
#![no_main]

tai_fuzz::program!();

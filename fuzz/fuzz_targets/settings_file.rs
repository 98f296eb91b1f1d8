//! Owns: the program of the parser `settings_file`. Refuses to know: what that parser is.
#![no_main]

tai_fuzz::program!();

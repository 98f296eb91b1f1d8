//! Owns: the program of the parser `ai_error`. Refuses to know: what that parser is.
#![no_main]

tai_fuzz::program!();

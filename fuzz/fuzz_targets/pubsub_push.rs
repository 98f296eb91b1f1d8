//! Owns: the program of the parser `pubsub_push`. Refuses to know: what that parser is.
#![no_main]

tai_fuzz::program!();

//! Owns: the program of the parser `pubsub_signal`. Refuses to know: what that parser is.
#![no_main]

tai_fuzz::program!();

//! Several writers on one ledger.

use std::time::Instant;

use testkit::firestore::Emulator;
use testkit::skip;
use testkit::store::author::everything;
use testkit::store::shared::{Load, Writers, run};

use crate::{open, verified};

const WRITERS: usize = 8;
const EACH: usize = 60;

#[test]
fn eight_writers_make_one_chain_of_each_stream() {
    let Some(emulator) = Emulator::start().unwrap() else {
        skip!("the Firestore emulator is not installed");
    };
    let address = emulator.address();
    let each = std::env::var_os("FIRESTORE_APPENDS");
    let each = each.map_or(EACH, |text| text.to_str().unwrap().parse().unwrap());
    let writers: Writers = (0..WRITERS).map(|_| Box::new(open(address, "writers")) as _).collect();
    let began = Instant::now();
    let tally = run(&writers, Load { each, batch: 2, others: 3 });
    println!("{WRITERS} writers in {:?}: {tally:?}", began.elapsed());
    assert_eq!(tally.receipts, WRITERS * each);
    assert!(tally.lost > 0, "nobody met anybody");
    assert_eq!(everything(&*writers[0]).len(), tally.receipts, "kept is what was acknowledged");
    let began = Instant::now();
    let report = verified(address, "writers");
    println!("verified in {:?}", began.elapsed());
    assert!(report.intact(), "{report:?}");
    assert_eq!((report.receipts, report.streams), (tally.receipts as u64, 4));
}

//! `bench`: measures the numbers that the design sets bars for, on this machine, beside their bars.
//!
//! Owns: the list of measurements and the command line. Refuses to know: how anything is measured.

mod append;
mod backends;
mod bare;
mod big;
mod gateway;
mod keys;
mod load;
mod machine;
mod marketplace;
mod memory;
mod neighbour;
mod numbers;
mod outage;
mod process;
mod report;
mod restart;
mod service;
mod telemetry;
mod verify;
mod workload;

use anyhow::{Context, Result, bail};

use crate::machine::Machine;
use crate::report::Report;

/// The allocator of the product: what is measured in this process is measured with it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// What the bars are stated for.
    Full,
    /// A tenth or less, to see that everything runs; never kept.
    Quick,
}

impl Size {
    fn pick<T>(self, full: T, quick: T) -> T {
        match self {
            Size::Full => full,
            Size::Quick => quick,
        }
    }
}

type Measure = fn(Size) -> Result<Report>;

const MEASUREMENTS: [(&str, Measure); 9] = [
    ("append", append::run),
    ("verify", verify::run),
    ("restart", restart::run),
    ("marketplace", marketplace::run),
    ("memory", memory::run),
    ("neighbour", neighbour::run),
    ("backends", backends::run),
    ("outage", outage::run),
    ("telemetry", telemetry::run),
];

const USAGE: &str = "usage: bench <append|verify|restart|marketplace|memory|neighbour|backends|outage|telemetry|all> [--quick]\n\
     usage: bench gateway [--only NAME,…] [--peers DIR] [--quick]";

fn main() -> Result<()> {
    let mut name = None;
    let mut size = Size::Full;
    let mut options = gateway::Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => size = Size::Quick,
            "--only" => {
                let names = arguments.next().context(USAGE)?;
                options.only = names.split(',').map(str::to_owned).collect();
            }
            "--peers" => options.peers = Some(arguments.next().context(USAGE)?.into()),
            _ if name.is_none() && !argument.starts_with('-') => name = Some(argument),
            _ => bail!(USAGE),
        }
    }
    let Some(name) = name else { bail!(USAGE) };
    match name.as_str() {
        gateway::upstream::WORD => return gateway::upstream::serve(),
        // Not among all: it needs what is not ours.
        "gateway" => {
            let machine = Machine::now()?;
            let report = gateway::run(size, &options)?;
            return report::publish("gateway", &report, &machine, size);
        }
        _ => {}
    }
    let chosen: Vec<_> =
        MEASUREMENTS.iter().filter(|(known, _)| name == "all" || name == *known).collect();
    if chosen.is_empty() {
        bail!(USAGE);
    }
    for (name, measure) in chosen {
        let machine = Machine::now()?;
        let report = measure(size)?;
        report::publish(name, &report, &machine, size)?;
    }
    Ok(())
}

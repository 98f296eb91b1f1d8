//! INV-9 over random interleavings of calls at the same time.
//!
//! Owns: the histories and a second account of them, kept from receipts alone. Refuses to know: the
//! inside of any state.

use std::collections::BTreeMap;

use ledger::Kind;
use proptest::prelude::*;
use types::Usage;

use super::budget::{MIDNIGHT, call, granted, set, used};
use super::*;

#[derive(Debug, Clone)]
enum Ask {
    Reserve {
        prices: usize,
        input_max: u64,
        floor: u64,
        wish: u64,
    },
    TopUp {
        which: usize,
        output: u64,
    },
    /// Shares of what was reserved, in hundredths: above a hundred is more than was permitted.
    Charge {
        which: usize,
        price: usize,
        input: u64,
        output: u64,
        status: usize,
    },
    Settle {
        which: usize,
        status: usize,
    },
    Pass {
        seconds: i64,
    },
}

const PRICES: [&[&str]; 4] = [&["cheap"], &["dear"], &["cheap", "dear"], &["echo"]];
const STATUSES: [OutcomeStatus; 4] =
    [OutcomeStatus::Success, OutcomeStatus::Error, OutcomeStatus::Timeout, OutcomeStatus::Unknown];

fn ask(share_max: u64) -> impl Strategy<Value = Ask> {
    let which = 0..6_usize;
    prop_oneof![
        5 => (0..PRICES.len(), 0..2_000_u64, 0..50_u64, 0..3_000_u64).prop_map(
            |(prices, input_max, floor, wish)| Ask::Reserve {
                prices, input_max, floor, wish: floor + wish,
            }
        ),
        2 => (which.clone(), 1..500_u64).prop_map(|(which, output)| Ask::TopUp { which, output }),
        4 => (which.clone(), 0..2_usize, 0..=share_max, 0..=share_max, 0..4_usize).prop_map(
            |(which, price, input, output, status)| Ask::Charge {
                which, price, input, output, status,
            }
        ),
        2 => (which, 0..4_usize).prop_map(|(which, status)| Ask::Settle { which, status }),
        1 => (0..MIDNIGHT).prop_map(|seconds| Ask::Pass { seconds }),
    ]
}

/// A call as its attempt and the receipts behind it describe it.
struct Open {
    prices: &'static [&'static str],
    input_max: u64,
    output_max: u64,
    micros: i64,
}

/// What receipts alone say of the limits' period; here a day, the month of the plan, or for ever.
#[derive(Default)]
struct Account {
    open: BTreeMap<String, Open>,
    settled_calls: i64,
    settled_micros: i64,
    over_micros: i64,
}

impl Account {
    fn read(&mut self, receipt: &View<'_>, prices: &'static [&'static str]) {
        let number = |key: &str| receipt.meta_int(key).unwrap_or(0);
        match receipt.kind {
            Kind::ActionAttempt => {
                let open = Open {
                    prices,
                    input_max: number("input_max").unsigned_abs(),
                    output_max: number("output_max").unsigned_abs(),
                    micros: number("reserved_micros"),
                };
                assert!(self.open.insert(receipt.id.to_string(), open).is_none());
            }
            Kind::ActionResult => {
                let held = self.open.remove(&receipt.intent.unwrap().to_string()).unwrap();
                let released = receipt.rule.unwrap().is("budget.settle")
                    && receipt.status.unwrap().is("error");
                let cost = number("cost_micros");
                assert!(!released || cost == 0);
                self.settled_calls += i64::from(!released);
                self.settled_micros += cost;
                let over = (cost - held.micros).max(0);
                assert_eq!(over, number("over_micros"));
                self.over_micros += over;
            }
            Kind::Transition if receipt.rule.unwrap().is("budget.top_up") => {
                let held = self.open.get_mut(&receipt.intent.unwrap().to_string()).unwrap();
                assert_eq!(held.micros + number("added_micros"), number("reserved_micros"));
                let added = number("added_output").unsigned_abs();
                assert!(added > 0);
                held.output_max += added;
                held.micros = number("reserved_micros");
            }
            Kind::Transition | Kind::Refusal => {}
        }
    }

    fn nth(&self, which: usize) -> (ReceiptId, Option<&Open>) {
        match self.open.iter().nth(which) {
            Some((id, open)) => (ReceiptId::parse(id).unwrap(), Some(open)),
            None => (ReceiptId([0; 16]), None),
        }
    }

    fn reserved(&self) -> i64 {
        self.open.values().map(|open| open.micros).sum()
    }
}

impl Ask {
    fn command(&self, account: &Account) -> Command {
        match *self {
            Ask::Reserve { prices, input_max, floor, wish } => {
                Command::Reserve(call(PRICES[prices], input_max, (floor, wish)))
            }
            Ask::TopUp { which, output } => {
                Command::TopUp { attempt: account.nth(which).0, output }
            }
            Ask::Charge { which, price, input, output, status } => {
                let (attempt, open) = account.nth(which);
                let share = |most: u64, share: u64| most * share / 100;
                let usage = open.map_or_else(Usage::default, |open| {
                    let prompt = share(open.input_max, input);
                    let answer = share(open.output_max, output);
                    let (cached, thought) = (prompt / 3, answer / 4);
                    Usage {
                        input: prompt - cached,
                        cache_write: cached,
                        output: answer - thought,
                        reasoning: thought,
                        ..Usage::default()
                    }
                });
                let targets = open.map_or(PRICES[0], |open| open.prices);
                let price = targets[price % targets.len()].to_owned();
                Command::Charge {
                    attempt,
                    charge: Charge { price, ..used(STATUSES[status], usage) },
                }
            }
            Ask::Settle { which, status } => Command::Settle {
                attempt: account.nth(which).0,
                outcome: Outcome { status: STATUSES[status], duration_ms: 5, tries: 1 },
            },
            Ask::Pass { .. } => Command::Tick,
        }
    }
}

fn limits() -> impl Strategy<Value = (Option<u64>, Option<i64>, Period)> {
    let calls = prop::option::weighted(0.7, 0..12_u64);
    let spend = prop::option::weighted(0.8, 0..40_000_i64);
    let period = prop_oneof![Just(Period::Day), Just(Period::Month), Just(Period::Ever)];
    (calls, spend, period)
}

type History = (Option<(Option<u64>, Option<i64>, Period)>, Vec<Ask>);

fn history(share_max: u64) -> impl Strategy<Value = History> {
    (prop::option::of(limits()), prop::collection::vec(ask(share_max), 1..80))
}

/// Runs a history and checks the laws at each step.
fn keeps_the_laws((own, asks): History, honest: bool) -> Result<(), TestCaseError> {
    let mut chain = granted("starter");
    let (calls_most, spend_most, period) = own.unwrap_or((Some(5), Some(10_000), Period::Month));
    let mut now = START;
    if let Some((calls, spend, period)) = own {
        chain.act(now, &set(calls, spend, period));
    }
    let mut account = Account::default();
    for ask in &asks {
        let before = now;
        now = Micros(now.0 + 1_000);
        if let Ask::Pass { seconds } = ask {
            now = now.plus_secs(*seconds);
        }
        if period.begins(before) != period.begins(now) {
            account = Account { open: account.open, ..Account::default() };
        }
        let command = ask.command(&account);
        let sealed_before = chain.cores.len();
        prop_assert_eq!(chain.decide(now, &command), chain.decide(now, &command));
        chain.act(now, &command);
        let prices = match ask {
            Ask::Reserve { prices, .. } => PRICES[*prices],
            _ => &[],
        };
        for core in &chain.cores[sealed_before..] {
            account.read(&View::scan(core).unwrap(), prices);
        }

        let view = chain.state.ai(now, &chain.rules).unwrap();
        let open = i64::try_from(view.open_calls).unwrap();
        let calls = i64::try_from(view.calls + view.unknown_calls).unwrap();
        let micros = view.spent_micros + view.unknown_micros;
        prop_assert_eq!((calls, micros), (account.settled_calls, account.settled_micros));
        prop_assert_eq!(view.over_micros, account.over_micros);
        prop_assert_eq!(view.reserved_micros, account.reserved());
        prop_assert!(
            chain.state.reservations().map(|id| id.to_string()).eq(account.open.keys().cloned())
        );
        prop_assert!(!honest || view.over_micros == 0, "honest use passes what was reserved");
        let within = |most: i64, of: i64| of <= most;
        if let Some(most) = calls_most {
            prop_assert!(within(most.cast_signed(), calls + open), "INV-9: calls");
        }
        if let Some(most) = spend_most {
            let sum = micros + view.reserved_micros - view.over_micros;
            prop_assert!(within(most, sum), "INV-9: {} of {}", sum, most);
        }
        let lines: i64 = view.invoice.models.iter().map(|model| model.micros).sum();
        prop_assert_eq!(view.invoice.total_micros, view.invoice.plan_micros + lines);
        if period == Period::Month {
            prop_assert_eq!(lines, micros);
        }
        let read = StreamState::from_snapshot(&chain.stream, &chain.state.to_snapshot());
        prop_assert_eq!(read.as_ref(), Some(&chain.state));
    }
    let mut again = StreamState::empty(&chain.stream);
    for core in &chain.cores {
        again.apply(&View::scan(core).unwrap()).unwrap();
    }
    prop_assert_eq!(&again, &chain.state, "folding from the beginning");
    prop_assert_eq!(chain.state.next_due(), None);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn honest_calls_never_pass_a_limit(history in history(100)) {
        keeps_the_laws(history, true)?;
    }

    #[test]
    fn calls_that_use_more_pass_it_by_that_alone(history in history(180)) {
        keeps_the_laws(history, false)?;
    }
}

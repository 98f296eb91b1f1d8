//! What the public may know of planned work, folded from its receipts.
//!
//! Owns: which windows are shown, and as what at which time. Refuses to know: which alerts they
//! hold back, and who planned them.

use governors::incident::MaintenancePhase;
use ledger::View;
use types::Micros;

/// Windows that are over and shown all the same, the newest.
const COMPLETED: usize = 5;

/// Windows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plans {
    /// In the order in which they begin.
    ahead: Vec<Window>,
    /// The newest end first.
    completed: Vec<Window>,
}

/// One window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) components: Vec<String>,
    /// May be empty.
    pub(super) text: String,
    pub(super) created: Micros,
    pub(super) from: Micros,
    /// When it ends, or did.
    pub(super) until: Micros,
    /// What it was shown as last.
    shown: MaintenancePhase,
}

impl Window {
    pub(super) fn phase(&self, now: Micros) -> MaintenancePhase {
        MaintenancePhase::at(self.from.secs(), self.until.secs(), now)
    }
}

impl Plans {
    /// Folds a receipt about a window; `None` where nothing public has changed.
    pub(super) fn fold(&mut self, rule: &str, name: &str, receipt: &View<'_>) -> Option<()> {
        if rule == "maintenance.add" {
            let components = receipt.meta_text("components")?;
            let window = Window {
                name: name.to_owned(),
                title: receipt.meta_text("title")?.into_owned(),
                components: components.split(',').map(str::to_owned).collect(),
                text: receipt.detail.map(|text| text.text().into_owned()).unwrap_or_default(),
                created: receipt.at,
                from: Micros::from_secs(receipt.effective_at?),
                until: Micros::from_secs(receipt.expires_at?),
                shown: MaintenancePhase::Scheduled,
            };
            let at = self.ahead.partition_point(|held| held.from <= window.from);
            self.ahead.insert(at, window);
            return Some(());
        }
        let at = self.ahead.iter().position(|held| held.name == name)?;
        let mut over = self.ahead.remove(at);
        over.until = over.until.min(receipt.at);
        // What was called off before it began never was.
        if over.from < over.until {
            self.completed.insert(0, over);
            self.completed.truncate(COMPLETED);
        }
        Some(())
    }

    /// Takes note of the time; true where a window is to be shown as something else by now.
    pub(super) fn advance(&mut self, now: Micros) -> bool {
        let mut is_news = false;
        for window in &mut self.ahead {
            let phase = window.phase(now);
            is_news |= std::mem::replace(&mut window.shown, phase) != phase;
        }
        is_news
    }

    /// The windows that are not over, in the order in which they begin.
    pub(super) fn ahead(&self, now: Micros) -> impl Iterator<Item = &Window> {
        self.ahead.iter().filter(move |held| held.phase(now) != MaintenancePhase::Completed)
    }

    /// The windows that are going on.
    pub(super) fn in_progress(&self, now: Micros) -> impl Iterator<Item = &Window> {
        self.ahead.iter().filter(move |held| held.phase(now) == MaintenancePhase::InProgress)
    }

    /// Some windows that are over.
    pub(super) fn completed(&self, now: Micros) -> impl Iterator<Item = &Window> {
        let just =
            self.ahead.iter().filter(move |held| held.phase(now) == MaintenancePhase::Completed);
        just.chain(&self.completed)
    }
}

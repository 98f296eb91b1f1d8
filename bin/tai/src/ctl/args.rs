//! The words of `tai ctl …`.
//!
//! Owns: names, options and their ranges. Refuses to know: which request each becomes.

use std::path::PathBuf;

use clap::{Args, Subcommand, value_parser};

/// Longest time that `--wait` takes, in seconds.
const WAIT_S_MAX: u64 = 3_600;

/// Asks a running service. The key comes from `TAI_KEY` or from a file: an argument would be in
/// the list of processes.
#[derive(Args)]
pub(crate) struct Ctl {
    /// Where the service is; `TAI_URL`, or this machine at the port of the settings, when left out.
    #[arg(long, global = true)]
    pub(crate) url: Option<String>,
    /// File that holds the key; `TAI_KEY` when left out.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Print the service's answer as it came.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to ask for.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What a running service can be asked for.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// How it is.
    Health,
    /// Its parts, and how often each was started again.
    Subsystems,
    /// Restart one part, or the whole process gracefully.
    Restart {
        /// The part, such as `governance_sup`; the whole process when left out.
        subsystem: Option<String>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Memory, open files and loaded streams.
    Memory,
    /// Queues and what is in flight.
    Queues,
    /// All settings; or look at one, change one, take a change back.
    Settings {
        #[command(subcommand)]
        verb: Option<SettingVerb>,
    },
    /// What calls leave to, and whether they may.
    Dependencies,
    /// Sources that are refused; or block one, or unblock it.
    Sources {
        #[command(subcommand)]
        verb: Option<SourceVerb>,
    },
    /// The Pub/Sub subscription; its state when nothing more is asked.
    Pubsub {
        #[command(subcommand)]
        verb: Option<PubsubVerb>,
    },
    /// Tenants.
    Tenant {
        #[command(subcommand)]
        verb: TenantVerb,
    },
    /// Keys of a tenant, or of the service.
    Key {
        #[command(subcommand)]
        verb: KeyVerb,
    },
    /// Our own figures as they stand.
    Sli {
        /// One of them, or the beginning of some with * behind it, such as `slo.*`: case by case.
        name: Option<String>,
        /// What this condition says now instead, such as `http.error_rate[5m] > 10%`.
        #[arg(long, value_name = "CONDITION", conflicts_with = "name")]
        explain: Option<String>,
    },
    /// Alerts that are not inactive; or why a rule fires or does not.
    Alerts {
        #[command(subcommand)]
        verb: Option<AlertVerb>,
    },
    /// What opens no incident for some time; or set such a silence, or clear it.
    Silences {
        #[command(subcommand)]
        verb: Option<SilenceVerb>,
    },
    /// Incidents that are open; or one of them, or what is to be done about it.
    Incidents {
        #[command(subcommand)]
        verb: Option<IncidentVerb>,
    },
    /// The channels over which incidents are told; or try one.
    Channels {
        #[command(subcommand)]
        verb: Option<ChannelVerb>,
    },
    /// Who is on call; or somebody in the place of whoever's turn it is.
    Oncall {
        #[command(subcommand)]
        verb: OncallVerb,
    },
    /// Work that is planned: its alerts open no incident, and the status page shows it.
    Maintenance {
        #[command(subcommand)]
        verb: MaintenanceVerb,
    },
    /// Refuse new work, finish what is in flight, and go on answering for health.
    Drain,
    /// Stop the process gracefully.
    Stop {
        #[command(flatten)]
        wait: Wait,
    },
}

/// How long to stay until what was asked for has happened.
#[derive(Args, Clone, Copy)]
pub(crate) struct Wait {
    /// Longest time to wait until it has happened; 0 does not wait.
    #[arg(long = "wait", value_name = "SECONDS", default_value_t = 60,
        value_parser = value_parser!(u64).range(..=WAIT_S_MAX))]
    pub(crate) seconds: u64,
}

/// What can be done with settings.
#[derive(Subcommand)]
pub(crate) enum SettingVerb {
    /// One setting.
    Get {
        /// The setting, such as `ACTION_POOL_SIZE`.
        name: String,
    },
    /// Change one while the service runs.
    Set {
        /// The setting.
        name: String,
        /// The value.
        value: String,
        /// Undo the change by itself after this time.
        #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..))]
        lease: Option<u64>,
    },
    /// Take change and lease back: what the process was started with holds again.
    Clear {
        /// The setting.
        name: String,
    },
}

/// What can be done with sources.
#[derive(Subcommand)]
pub(crate) enum SourceVerb {
    /// Refuse requests from it for some time.
    Block {
        /// An address or a network, such as 203.0.113.0/24.
        source: String,
        /// How long.
        #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..))]
        lease: u64,
    },
    /// Refuse it no longer.
    Unblock {
        /// The address or network, as it was blocked.
        source: String,
    },
}

/// What can be asked of alerts.
#[derive(Subcommand)]
pub(crate) enum AlertVerb {
    /// Sample by sample what was seen of a rule.
    Explain {
        /// The rule, such as error-rate-high.
        rule: String,
        /// One case alone, as alerts show it, such as {provider="openai"}.
        #[arg(long)]
        labels: Option<String>,
    },
}

/// What can be done with silences.
#[derive(Subcommand)]
pub(crate) enum SilenceVerb {
    /// Let alerts that it matches open no incident for some time.
    Set {
        /// `rule=ID`, `component=NAME` or `alert=KEY`.
        matcher: String,
        /// How long.
        #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..))]
        lease: u64,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        why: String,
    },
    /// End it.
    Clear {
        /// The matcher, as it was set.
        matcher: String,
    },
}

/// What can be done with incidents.
#[derive(Subcommand)]
pub(crate) enum IncidentVerb {
    /// What the receipts say of one, also of one that is resolved.
    Show {
        /// The incident, such as INC-7.
        id: String,
    },
    /// There is one that no alert has found.
    Declare {
        /// One line.
        title: String,
        /// How bad it is: sev1 to sev4, or another word of the runbooks.
        #[arg(long)]
        severity: String,
        /// What it is about.
        #[arg(long)]
        component: String,
        /// What is known.
        #[arg(long)]
        text: Option<String>,
    },
    /// Somebody looks after it.
    Ack {
        /// The incident.
        id: String,
    },
    /// Somebody takes a role.
    Assign {
        /// The incident.
        id: String,
        /// commander, technical_lead, communications or scribe.
        // Not by the name of the field: `--role` of `serve` is known to all verbs.
        #[arg(id = "incident_role", value_name = "ROLE")]
        role: String,
        /// Who.
        who: String,
    },
    /// It is better or worse than it was taken for.
    Grade {
        /// The incident.
        id: String,
        /// How bad it is.
        severity: String,
    },
    /// It has come to another status.
    Status {
        /// The incident.
        id: String,
        /// investigating, identified, monitoring or resolved.
        word: String,
        /// What is known; the status page shows it, of resolved with `--public` alone.
        text: Option<String>,
        /// Show the text of resolved on the status page.
        #[arg(long)]
        public: bool,
    },
    /// Tell everybody something; the status page shows it.
    Update {
        /// The incident.
        id: String,
        /// What.
        text: String,
    },
    /// Write something into the timeline alone.
    Note {
        /// The incident.
        id: String,
        /// What.
        text: String,
    },
    /// The draft of its post-mortem, as Markdown.
    Postmortem {
        /// The incident.
        id: String,
    },
}

/// What can be done with channels.
#[derive(Subcommand)]
pub(crate) enum ChannelVerb {
    /// Tell it a notice that is marked as a test, and say what came of it.
    Test {
        /// The channel, such as slack.
        name: String,
    },
}

/// What can be asked about who is on call.
#[derive(Subcommand)]
pub(crate) enum OncallVerb {
    /// Who is on call.
    Who {
        /// At which instant, such as 2026-12-24T09:00:00Z or unix seconds; now when left out.
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
    /// Somebody in the place of a rotation, for some time; all of them when nothing more is asked.
    Override {
        #[command(subcommand)]
        verb: Option<OverrideVerb>,
    },
}

/// What can be done with overrides.
#[derive(Subcommand)]
pub(crate) enum OverrideVerb {
    /// Put somebody in the place of a rotation.
    Add {
        /// The rotation, such as primary.
        rotation: String,
        /// The person, as the catalogue names people.
        who: String,
        /// From when; now when left out.
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Until when.
        #[arg(long, value_name = "TIME")]
        until: String,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// End it.
    End {
        /// The override, such as OVR-3.
        id: String,
    },
}

/// What can be done with maintenance windows.
#[derive(Subcommand)]
pub(crate) enum MaintenanceVerb {
    /// Plan one.
    Add {
        /// One line; the status page shows it.
        title: String,
        /// What is worked on; once for each component.
        #[arg(long = "component", required = true)]
        components: Vec<String>,
        /// From when; now when left out.
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Until when, at most a week after it begins.
        #[arg(long, value_name = "TIME")]
        until: String,
        /// What else the public is to know.
        #[arg(long)]
        text: Option<String>,
    },
    /// Those that are not over.
    List,
    /// End one now, or call it off.
    End {
        /// The window, such as MNT-3.
        id: String,
    },
}

/// What can be done with the Pub/Sub subscription.
#[derive(Subcommand, Clone, Copy)]
pub(crate) enum PubsubVerb {
    /// How it is.
    Status,
    /// Take no more messages.
    Pause,
    /// Take messages again.
    Resume,
    /// Take dead letters in again.
    Replay {
        /// How many at most; the service's own limit when left out.
        #[arg(long, value_parser = value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
}

/// What can be done with tenants.
#[derive(Subcommand)]
pub(crate) enum TenantVerb {
    /// One tenant: entitlements, number of keys and receipts.
    Show {
        /// The tenant's id.
        id: String,
    },
    /// Register a tenant.
    Create {
        /// The tenant's id.
        id: String,
    },
    /// Limits of its own for its calls to models, in place of its plan's.
    Budget {
        /// The tenant's id.
        id: String,
        /// Calls in the period; as many as it likes when left out.
        #[arg(long, value_parser = value_parser!(u32).range(1..))]
        calls: Option<u32>,
        /// What they may cost in the period, in minor units; as much as it likes when left out.
        #[arg(long, value_name = "MINOR", value_parser = value_parser!(u32).range(1..))]
        spend: Option<u32>,
        /// How long is counted together: month, day or ever.
        #[arg(long, value_parser = ["month", "day", "ever"], default_value = "month")]
        period: String,
        /// Take the limits back: the plan's hold again.
        #[arg(long, conflicts_with_all = ["calls", "spend", "period"])]
        clear: bool,
    },
}

/// What can be done with keys.
#[derive(Subcommand)]
pub(crate) enum KeyVerb {
    /// The keys, without their texts, which nobody has.
    List {
        #[command(flatten)]
        owner: Owner,
    },
    /// A new key. Its text is printed once and kept nowhere.
    Create {
        #[command(flatten)]
        owner: Owner,
        /// What it permits, such as `receipts:read`; once for each scope.
        #[arg(long = "scope")]
        scopes: Vec<String>,
        /// What a person calls it.
        #[arg(long)]
        label: Option<String>,
        /// It ends by itself after this time.
        #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..))]
        expires_in: Option<u64>,
    },
    /// A new key in the place of an old one, which ends after the overlap.
    Rotate {
        /// The old key's id.
        id: String,
        #[command(flatten)]
        owner: Owner,
        /// How long both are valid.
        #[arg(long, value_name = "SECONDS")]
        overlap: Option<u64>,
    },
    /// The key ends now.
    Revoke {
        /// The key's id.
        id: String,
        #[command(flatten)]
        owner: Owner,
    },
}

/// Whose keys.
#[derive(Args)]
pub(crate) struct Owner {
    /// The tenant whose keys they are; the service's own when left out.
    #[arg(long, value_name = "ID")]
    pub(crate) tenant: Option<String>,
}

//! Settings: where they come from, and `tai check`.
//!
//! Owns: reading the environment and the settings file, which nothing else does, and the port that
//! a link stands for. Refuses to know: what a setting means.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use settings::{Baseline, Resolved, Settings, Source};

use crate::cli::{EXIT_OK, EXIT_USAGE, complain, say};
use crate::serve::{Prepared, prepare};

const DEFAULT_FILE: &str = "tai.toml";

/// The setting whose default depends on the name that the binary was called by.
const PORT: &str = "PORT";

/// The setting that the command line may state.
pub(crate) const ROLE: &str = "SERVICE_ROLE";

/// One variable of the environment that is no setting. An empty one counts as unset, as settings
/// do.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// What a process starts with.
pub(crate) struct Start {
    /// The texts of environment and file, for when a live change ends.
    pub(crate) baseline: Baseline,
    /// What follows from them.
    pub(crate) resolved: Resolved,
}

/// Resolves all settings; the mistakes of all of them at once otherwise. `role` is what the command
/// line says, `default_port` stands in for the table's.
pub(crate) fn resolve(
    config: Option<&Path>,
    role: Option<&OsString>,
    default_port: Option<u16>,
) -> Result<Start, Vec<String>> {
    let path = config.unwrap_or(Path::new(DEFAULT_FILE));
    let name = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if config.is_none() && error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(vec![format!("settings file {name}: {error}")]),
    };
    let file = text.as_deref().map(|text| (name.as_str(), text));
    let environment = |name: &str| match role {
        Some(role) if name == ROLE => Some(role.clone()),
        _ => std::env::var_os(name),
    };
    let resolve = |lookup: &dyn Fn(&str) -> Option<OsString>| {
        let baseline = Baseline::capture(lookup, file);
        match baseline.resolve(&[]) {
            Ok(resolved) => Ok(Start { baseline, resolved }),
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>()),
        }
    };
    let start = resolve(&environment)?;
    match default_port {
        Some(port) if is_default(&start.resolved, PORT) => {
            let port = OsString::from(port.to_string());
            resolve(&|name| if name == PORT { Some(port.clone()) } else { environment(name) })
        }
        _ => Ok(start),
    }
}

/// The settings of another service: what its file says. Our environment is not its own.
pub(crate) fn of_file(path: &Path) -> Result<Settings, Vec<String>> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| vec![format!("settings file {name}: {error}")])?;
    let baseline = Baseline::capture(&|_| None::<OsString>, Some((&name, &text)));
    let resolved = baseline.resolve(&[]);
    resolved
        .map(|resolved| resolved.settings)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn is_default(resolved: &Resolved, name: &str) -> bool {
    let mut origins = resolved.provenance.iter();
    origins.any(|origin| origin.name == name && origin.source == Source::Default)
}

/// Prints each setting with its value, unit and origin, then checks what can be checked without
/// starting.
pub(crate) fn show(resolved: &Resolved) -> anyhow::Result<ExitCode> {
    let widths = resolved.provenance.iter().fold((0, 0), |(name, value), origin| {
        (name.max(origin.name.len()), value.max(origin.value.len() + origin.unit.len() + 1))
    });
    for origin in &resolved.provenance {
        let value = format!("{} {}", origin.value, origin.unit);
        let (name_width, value_width) = widths;
        say(&format!("{:name_width$}  {value:value_width$}  {}", origin.name, origin.source));
    }
    match prepare(&resolved.settings) {
        Ok(Prepared { rules, providers, watch, bodies, gaps }) => {
            say(&format!("catalogue {} is valid", rules.catalogue.version));
            let names = providers.models.providers().map(|provider| provider.name);
            say(&format!("providers: {}", names.collect::<Vec<_>>().join(", ")));
            say(&format!("alert rules: {}", watch.rules.iter().count()));
            let channels = watch.names();
            let channels =
                if channels.is_empty() { "none".to_owned() } else { channels.join(", ") };
            say(&format!("channels: {channels}"));
            let people = rules.oncall().rota().people().iter();
            for person in people.filter(|person| person.channels.is_empty()) {
                complain(&format!("tai: no channel that is set up reaches {}", person.name));
            }
            gaps.iter().for_each(|gap| complain(&format!("tai: {gap}")));
            if let Some(file) = bodies {
                say(&format!("validation rules are valid: {}", file.note));
            }
            Ok(ExitCode::from(EXIT_OK))
        }
        Err(error) => {
            complain(&format!("tai: {error:#}"));
            Ok(ExitCode::from(EXIT_USAGE))
        }
    }
}

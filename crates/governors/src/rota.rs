//! Who is on call at an instant: the rota as data.
//!
//! Owns: people, the rotations that they take turns in, and whose turn it is. Refuses to know: any
//! incident, and how a person is reached. All times are UTC: there is no time zone whose rules
//! could change whose turn it is.
//!
//! A rotation is a list of layers; the first one that somebody is on counts. The turns of a layer
//! go on for ever from its start. An override puts another person in the place of a rotation for
//! some time.

use toml::Value;
use toml::value::{Datetime, Offset, Time};
use types::Micros;
use types::time::days_from_civil;

use crate::incident::Override;
use crate::section::{CatalogueError, Section};

const DAY_S: i64 = 86_400;
/// Longest turn: twelve weeks.
const SHIFT_MAX_H: i64 = 12 * 7 * 24;
const SHIFT: &str = "hours, 1 to 2016";
/// People, rotations, layers of one, and turns of one layer.
const PEOPLE_MAX: usize = 64;
const ROTATIONS_MAX: usize = 16;
const LAYERS_MAX: usize = 8;
const TURNS_MAX: usize = 64;
const START: &str = "an instant in UTC without fractions, such as 2026-11-23T09:00:00Z";
const TIME: &str = "a time of day, such as 09:00:00";
const HOURS: &str = "two different times of day, such as [09:00:00, 17:00:00]";

/// People and rotations. Without any, ladders name targets alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rota {
    /// In ascending order of names.
    people: Vec<Person>,
    /// In ascending order of names.
    rotations: Vec<Rotation>,
}

/// Somebody who may be on call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The name in the catalogue.
    pub name: String,
    /// The channels that reach this person.
    pub channels: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rotation {
    name: String,
    layers: Vec<Layer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    /// Nobody is on it before.
    start_s: i64,
    /// From when turns are counted: `start_s`, or the hand-over time of its day.
    anchor_s: i64,
    shift_s: i64,
    /// Places among the people; nobody's turn ever comes where it is empty.
    order: Vec<usize>,
    /// The part of the day that it is for, in seconds of the day; over midnight where it ends
    /// before it begins.
    hours: Option<(i64, i64)>,
}

impl Rota {
    /// Reads `oncall.people` and `oncall.rotations`, where they are there. `channels` gives what a
    /// word stands for in the list of a person.
    pub(crate) fn read(
        oncall: &Section<'_>,
        channels: impl Fn(&Section<'_>, &str) -> Result<Vec<String>, CatalogueError>,
    ) -> Result<Rota, CatalogueError> {
        let people = match oncall.table.get("people") {
            None => Vec::new(),
            Some(_) => {
                let section = oncall.section("people")?;
                let one = |name: &String| {
                    section.check_word(name, name)?;
                    Ok(Person { name: name.clone(), channels: channels(&section, name)? })
                };
                section.table.keys().map(one).collect::<Result<Vec<_>, _>>()?
            }
        };
        if people.len() > PEOPLE_MAX {
            return Err(oncall.invalid("people", "at most 64 people"));
        }
        let rotations = match oncall.table.get("rotations") {
            None => Vec::new(),
            Some(_) => oncall.section("rotations")?.each(|name, rotation| {
                rotation.only(&["layers"])?;
                let layers = rotation.tables("layers")?;
                if layers.len() > LAYERS_MAX {
                    return Err(rotation.invalid("layers", "at most 8 layers"));
                }
                let layers = layers.iter().map(|layer| Layer::read(layer, &people));
                Ok(Rotation { name, layers: layers.collect::<Result<_, _>>()? })
            })?,
        };
        if rotations.len() > ROTATIONS_MAX {
            return Err(oncall.invalid("rotations", "at most 16 rotations"));
        }
        Ok(Rota { people, rotations })
    }

    /// Leaves people these channels alone.
    pub(crate) fn keep(&mut self, set_up: &[&str]) {
        for person in &mut self.people {
            person.channels.retain(|name| set_up.contains(&&**name));
        }
    }

    /// The rotations, in ascending order.
    pub fn rotations(&self) -> impl Iterator<Item = &str> {
        self.rotations.iter().map(|held| &*held.name)
    }

    /// The people, in ascending order of names.
    #[must_use]
    pub fn people(&self) -> &[Person] {
        &self.people
    }

    /// The person of that name.
    #[must_use]
    pub fn person(&self, name: &str) -> Option<&Person> {
        self.people.iter().find(|held| held.name == name)
    }

    /// Everybody whose turn on a rotation may come.
    pub(crate) fn members(&self, rotation: &str) -> impl Iterator<Item = &Person> {
        let found = self.rotations.iter().find(|held| held.name == rotation);
        let layers = found.into_iter().flat_map(|held| &held.layers);
        layers.flat_map(|layer| layer.order.iter().map(|place| &self.people[*place]))
    }

    /// Who is on a rotation at `now`, and the override that says so where one does: the newest one
    /// that is in force and names somebody whom a channel reaches.
    #[must_use]
    pub fn on_call<'a>(
        &'a self,
        rotation: &str,
        overrides: &'a [Override],
        now: Micros,
    ) -> Option<(&'a Person, Option<&'a Override>)> {
        let rotation = self.rotations.iter().find(|held| held.name == rotation)?;
        let in_force = |held: &&Override| held.rotation == rotation.name && held.is_in_force(now);
        let mut newest = overrides.iter().rev().filter(in_force);
        let reached = |name: &str| self.person(name).filter(|held| !held.channels.is_empty());
        let other = newest.find_map(|held| Some((reached(&held.person)?, Some(held))));
        other.or_else(|| {
            let turn = rotation.layers.iter().find_map(|layer| layer.turn(now.secs()))?;
            Some((&self.people[turn], None))
        })
    }
}

impl Layer {
    fn read(section: &Section<'_>, people: &[Person]) -> Result<Layer, CatalogueError> {
        section.only(&["start", "hand_over", "shift_h", "order", "hours"])?;
        let start = section.table.get("start").ok_or_else(|| section.missing("start"))?;
        let start_s = instant(start).ok_or_else(|| section.invalid("start", START))?;
        let of_day = match section.table.get("hand_over") {
            None => start_s.rem_euclid(DAY_S),
            Some(time) => time_of_day(time).ok_or_else(|| section.invalid("hand_over", TIME))?,
        };
        let place = |name: &String| people.iter().position(|person| person.name == *name);
        let order = section.words("order")?;
        let order: Option<Vec<usize>> = order.iter().map(place).collect();
        let order = order.filter(|order| order.len() <= TURNS_MAX).ok_or_else(|| {
            section.invalid("order", "a list of at most 64 names out of oncall.people")
        })?;
        let hours = match section.table.get("hours") {
            None => None,
            Some(hours) => {
                let hours = hours.as_array().map(|both| both.iter().map(time_of_day));
                let hours: Option<Vec<i64>> = hours.and_then(Iterator::collect);
                match hours.as_deref() {
                    Some(&[from, to]) if from != to => Some((from, to)),
                    _ => return Err(section.invalid("hours", HOURS)),
                }
            }
        };
        let shift_h = section.integer("shift_h", 1..=SHIFT_MAX_H, SHIFT)?;
        let anchor_s = start_s - start_s.rem_euclid(DAY_S) + of_day;
        Ok(Layer { start_s, anchor_s, shift_s: shift_h * 3_600, order, hours })
    }

    /// Whose turn it is, as a place among the people.
    fn turn(&self, now_s: i64) -> Option<usize> {
        let of_day = now_s.rem_euclid(DAY_S);
        let is_on = self.hours.is_none_or(|(from, to)| match from < to {
            true => (from..to).contains(&of_day),
            false => of_day >= from || of_day < to,
        });
        if !is_on || now_s < self.start_s {
            return None;
        }
        // Before its first hand-over it is the first one's.
        let turn = (now_s - self.anchor_s).max(0) / self.shift_s;
        let places = i64::try_from(self.order.len()).ok().filter(|places| *places > 0)?;
        self.order.get(usize::try_from(turn % places).ok()?).copied()
    }
}

/// An instant in UTC, in unix seconds.
fn instant(value: &Value) -> Option<i64> {
    let Value::Datetime(Datetime { date: Some(date), time: Some(time), offset: Some(offset) }) =
        value
    else {
        return None;
    };
    if !matches!(offset, Offset::Z | Offset::Custom { minutes: 0 }) || date.year < 1970 {
        return None;
    }
    let days = days_from_civil(date.year.into(), date.month.into(), date.day.into());
    Some(days * DAY_S + seconds(time)?)
}

/// A time of day, in seconds of the day.
fn time_of_day(value: &Value) -> Option<i64> {
    match value {
        Value::Datetime(Datetime { date: None, time: Some(time), offset: None }) => seconds(time),
        _ => None,
    }
}

fn seconds(time: &Time) -> Option<i64> {
    let whole = time.nanosecond.is_none_or(|nanosecond| nanosecond == 0);
    let second = time.second.unwrap_or(0);
    let of_day = i64::from(time.hour) * 3_600 + i64::from(time.minute) * 60 + i64::from(second);
    (whole && second < 60).then_some(of_day)
}

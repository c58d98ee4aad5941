//! What may happen to a request, and when: the windows in which a trouble is documented to refuse or to cut connections.
//! Everything else that goes wrong for a client that is allowed is a loss.

use std::sync::Mutex;
use std::time::Instant;

/// What a trouble is documented to do to connections that are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    /// New ones may be turned away.
    pub(crate) refuses: bool,
    /// Open ones may be cut.
    pub(crate) cuts: bool,
}

impl Effect {
    /// Nobody may notice.
    pub(crate) const NONE: Self = Self {
        refuses: false,
        cuts: false,
    };
    /// New connections may be turned away; those that are open live on.
    pub(crate) const REFUSES: Self = Self {
        refuses: true,
        cuts: false,
    };
    /// Both.
    pub(crate) const CUTS: Self = Self {
        refuses: true,
        cuts: true,
    };
}

/// What went wrong for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// A new connection ended before its first answer.
    Refused,
    /// A connection that had answered before ended.
    Cut,
}

/// All windows so far.
#[derive(Debug, Default)]
pub(crate) struct Weather(Mutex<Vec<Window>>);

#[derive(Debug)]
struct Window {
    trouble: &'static str,
    effect: Effect,
    begun: Instant,
    ended: Option<Instant>,
}

/// Names a window.
#[derive(Debug)]
pub(crate) struct Opened(usize);

impl Weather {
    /// A trouble is about to begin.
    pub(crate) fn open(&self, trouble: &'static str, effect: Effect) -> Opened {
        let mut windows = self.0.lock().unwrap();
        windows.push(Window {
            trouble,
            effect,
            begun: Instant::now(),
            ended: None,
        });
        Opened(windows.len() - 1)
    }

    /// It is over, and what it did is healed: what goes wrong from now on is no longer its doing.
    pub(crate) fn close(&self, opened: &Opened) {
        self.0.lock().unwrap()[opened.0].ended = Some(Instant::now());
    }

    /// Whether some trouble is documented to have done this, at some time from then to now.
    pub(crate) fn explains(&self, mishap: Mishap, since: Instant) -> bool {
        self.0.lock().unwrap().iter().any(|window| {
            let documented = match mishap {
                Mishap::Refused => window.effect.refuses,
                Mishap::Cut => window.effect.cuts,
            };
            documented && window.ended.is_none_or(|ended| ended >= since)
        })
    }

    /// The troubles of now, for a person.
    pub(crate) fn now(&self) -> String {
        let windows = self.0.lock().unwrap();
        let names: Vec<_> = windows
            .iter()
            .filter(|window| window.ended.is_none())
            .map(|window| window.trouble)
            .collect();
        if names.is_empty() {
            "no trouble".to_owned()
        } else {
            names.join(" and ")
        }
    }

    /// How often each trouble was there, and how many seconds in all.
    pub(crate) fn totals(&self, trouble: &str) -> (usize, f64) {
        let windows = self.0.lock().unwrap();
        let of_it = windows.iter().filter(|window| window.trouble == trouble);
        of_it.fold((0, 0.0), |(times, seconds), window| {
            let ended = window.ended.unwrap_or_else(Instant::now);
            (times + 1, seconds + (ended - window.begun).as_secs_f64())
        })
    }
}

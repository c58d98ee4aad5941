//! What rules and budgets say of listeners, checked against those that the config has.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::config::ListenerName;
use crate::policy::rule::Ports;
use crate::record::Direction;
use crate::yaml::{Findings, Place, closest, one_of};

/// The most names or ports that an advice lists.
const MAX_LISTED: usize = 10;

/// The listeners of the config; none known when it could not be read.
pub(super) struct Listeners<'a> {
    known: Option<Known<'a>>,
}

struct Known<'a> {
    inbound: HashSet<&'a str>,
    outbound: HashSet<&'a str>,
    /// The inbound listeners of each port.
    by_port: HashMap<u16, Vec<Arc<str>>>,
    outbound_ports: HashSet<u16>,
}

impl<'a> Listeners<'a> {
    pub(super) fn new(listeners: Option<&'a [ListenerName]>) -> Self {
        let known = listeners.map(|listeners| {
            let facing = |direction| listeners.iter().filter(move |l| l.direction == direction);
            let mut by_port: HashMap<u16, Vec<Arc<str>>> = HashMap::new();
            for listener in facing(Direction::Inbound) {
                if let Some(port) = listener.port {
                    by_port.entry(port).or_default().push(Arc::clone(&listener.name));
                }
            }
            Known {
                inbound: facing(Direction::Inbound).map(|l| &*l.name).collect(),
                outbound: facing(Direction::Outbound).map(|l| &*l.name).collect(),
                by_port,
                outbound_ports: facing(Direction::Outbound).filter_map(|l| l.port).collect(),
            }
        });
        Self { known }
    }

    /// The names, once it is told what is wrong with them.
    pub(super) fn check_to(
        &self,
        to: Option<Vec<(Arc<str>, Place)>>,
        findings: &mut Findings,
    ) -> Option<Box<[Arc<str>]>> {
        let to = to?;
        let mut seen: HashSet<&str> = HashSet::new();
        for (name, place) in &to {
            if !seen.insert(name) {
                findings.error(*place, format!("`{name}` is in `to` twice"));
            } else if let Some(known) = &self.known {
                known.check_name(name, *place, findings);
            }
        }
        Some(to.into_iter().map(|(name, _)| name).collect())
    }

    /// The ports with their listeners, once it is told what is wrong with them.
    pub(super) fn check_ports(
        &self,
        ports: Option<Vec<(u16, Place)>>,
        findings: &mut Findings,
    ) -> Option<Ports> {
        let ports = ports?;
        let mut listeners: Vec<Arc<str>> = Vec::new();
        for (port, place) in &ports {
            if let Some(known) = &self.known {
                match known.by_port.get(port) {
                    Some(names) => listeners.extend(names.iter().cloned()),
                    None => known.unknown_port(*port, *place, findings),
                }
            }
        }
        Some(Ports {
            written: ports.into_iter().map(|(port, _)| port).collect(),
            listeners: self.known.is_some().then(|| listeners.into()),
        })
    }
}

impl Known<'_> {
    fn check_name(&self, name: &str, place: Place, findings: &mut Findings) {
        if self.inbound.contains(name) {
            return;
        }
        if self.outbound.contains(name) {
            let message = format!("`{name}` is an outbound listener: policies decide about inbound ones");
            findings.error_with_help(place, message, "the listener's `peer` says who may answer there");
            return;
        }
        let mut known: Vec<&str> = self.inbound.iter().copied().collect();
        known.sort_unstable();
        let help = match (closest(name, &known), known.as_slice()) {
            (Some(word), _) => format!("did you mean `{word}`?"),
            (None, []) => "the config has no inbound listener".to_owned(),
            (None, known) if known.len() <= MAX_LISTED => {
                format!("the inbound listeners are {}", one_of(known))
            }
            (None, known) => format!("the config has {} inbound listeners", known.len()),
        };
        let message = format!("`to` names listener `{name}`, which the config does not have");
        findings.error_with_help(place, message, help);
    }

    fn unknown_port(&self, port: u16, place: Place, findings: &mut Findings) {
        let message = format!("`ports` names {port}, on which no inbound listener listens");
        let mut known: Vec<(u16, &str)> = self
            .by_port
            .iter()
            .flat_map(|(port, names)| names.iter().map(|name| (*port, &**name)))
            .collect();
        known.sort_unstable();
        let help = if self.outbound_ports.contains(&port) {
            "an outbound listener does: policies decide about inbound ones".to_owned()
        } else if known.is_empty() {
            "no inbound listener has a port that is known: name listeners in `to`".to_owned()
        } else if known.len() <= MAX_LISTED {
            let known: Vec<String> = known
                .iter()
                .map(|(port, name)| format!("{port} (`{name}`)"))
                .collect();
            format!("the ports of inbound listeners are {}", known.join(", "))
        } else {
            format!("the config has {} inbound listeners with a port", known.len())
        };
        findings.error_with_help(place, message, help);
    }
}

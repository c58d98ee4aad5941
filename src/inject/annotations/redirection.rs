//! What an init container that redirects connections is told to leave out, or to take alone.

use super::read::Reader;
use super::{PREFIX, REDIRECTION, TRANSPARENT};
use crate::config::network::network;

impl Reader<'_, '_> {
    /// The annotations that are options of `svidecar intercept`, each with its values.
    pub(super) fn redirection(&mut self, transparent: bool) -> Vec<(&'static str, Vec<String>)> {
        let mut all = Vec::new();
        for name in REDIRECTION {
            let Some((value, place)) = self.find(name) else {
                continue;
            };
            if !transparent {
                let why = format!("does nothing without `{PREFIX}{TRANSPARENT}: \"true\"`");
                self.bad(place, name, &why);
                continue;
            }
            let items = value.split([',', '\n']).map(str::trim);
            let items: Vec<String> = items.filter(|item| !item.is_empty()).map(str::to_owned).collect();
            let is_good = |item: &String| match name.ends_with("-networks") {
                true => network(item).is_ok(),
                false => item.parse::<u16>().is_ok_and(|port| port != 0),
            };
            match items.iter().find(|item| !is_good(item)) {
                Some(bad) => self.bad(place, name, &format!("`{bad}` is none")),
                None if items.is_empty() => self.bad(place, name, "has no entry"),
                None => all.push((*name, items)),
            }
        }
        all
    }
}

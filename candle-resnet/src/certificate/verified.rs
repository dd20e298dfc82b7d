//! What was measured when the references were last gone through: `models/verified.tsv`.
//!
//! `scripts/golden/make_table.sh` writes it together with `docs/NETWORKS.md`. [`NetworkReference::compare_all`] measures
//! anew.
//!
//! [`NetworkReference::compare_all`]: super::NetworkReference::compare_all

use super::networks::program;

const TABLE: &str = include_str!(concat!(env!("MODELS"), "/verified.tsv"));

/// A network that was shown equal to another program's, with formula weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VerifiedNetwork {
    /// The architecture's name.
    pub architecture: &'static str,
    /// The programs and versions that it was compared with.
    pub program: &'static str,
    /// The largest relative difference of logits and features of the network that can be trained.
    pub trainable: f64,
    /// The same of the frozen trunk and the classifier after it.
    pub frozen: f64,
}

/// Every comparison that held.
pub fn verified_networks() -> Vec<VerifiedNetwork> {
    TABLE.lines().skip(1).filter_map(parse).collect()
}

fn parse(line: &'static str) -> Option<VerifiedNetwork> {
    let mut columns = line.split('\t');
    let mut next = || columns.next();
    Some(VerifiedNetwork {
        architecture: next()?,
        program: program(next()?),
        trainable: next()?.parse().ok()?,
        frozen: next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::ARCHITECTURES;
    use crate::certificate::NetworkReference;

    #[test]
    fn every_architecture_was_shown_equal() {
        let verified = verified_networks();
        assert_eq!(verified.len(), TABLE.lines().count() - 1);
        for architecture in ARCHITECTURES {
            let found = verified.iter().filter(|network| network.architecture == architecture.name);
            let programs: Vec<&str> = found.map(|network| network.program).collect();
            for reference in NetworkReference::of(architecture) {
                assert!(programs.contains(&reference.program()), "{}: run make_table.sh", architecture.name);
            }
        }
    }

    #[test]
    fn what_is_listed_is_within_the_tolerance() {
        for network in verified_networks() {
            assert!(network.trainable <= 1e-4 && network.frozen <= 1e-4, "{network:?}");
        }
    }
}

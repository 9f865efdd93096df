//! Other people's packet filters on the same machine.
//!
//! An `accept` in one table cannot undo a `drop` in another: every base chain of a hook has its say. A dockerd, ufw or
//! firewalld may set the policy of iptables' `FORWARD` chain to `DROP`, and then nothing leaves our bridge. With
//! iptables of the nf_tables kind that chain is a chain of the table `ip filter`, to which rules can be appended here:
//!
//! ```text
//! -A FORWARD -o dory0 -j ACCEPT
//! -A FORWARD -i dory0 -o docker0 -j RETURN
//! -A FORWARD -i dory0 -o br-+ -j RETURN
//! -A FORWARD -i dory0 -j ACCEPT
//! ```
//!
//! They stand at the end, so that they replace the policy for our bridge and never overrule a rule that somebody wrote.
//! The first opens nothing, since our own table drops what must not come in. The middle ones are there where a dockerd
//! is: its containers' unpublished ports are protected by that policy alone. They are written in the form that
//! iptables itself uses, so that `iptables -S` and dockerd go on reading the table, and carry our mark as user data.
//!
//! iptables of the older kind has tables of its own, which nf_tables does not show: [`crate::legacy`] puts the same rules
//! there. Both families have such tables: dockerd drops what is forwarded of IPv6 as well since version 27.

use std::io;

use crate::bridge::NetworkFact;
use crate::legacy;
use crate::netlink::NetlinkError;
use crate::nftables::{self, Family, Policy, Table, Transaction};

/// Whose packets are looked after.
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
const TABLE: &str = "filter";
const CHAIN: &str = "FORWARD";
/// The chain that every dockerd makes in [`TABLE`].
const DOCKER: &str = "DOCKER";
/// The interfaces of a dockerd's networks, as iptables patterns.
const DOCKER_BRIDGES: [&str; 2] = ["docker0", "br-+"];
/// Type of user data that is a comment (libnftnl's `NFTNL_UDATA_RULE_COMMENT`): `nft list` shows it.
const COMMENT: u8 = 0;

/// Our rules in other people's chains, for one bridge.
#[derive(Debug, Clone)]
pub(crate) struct ForeignFirewall {
    bridge: String,
}

impl ForeignFirewall {
    pub(crate) fn new(bridge: &str) -> Self {
        Self { bridge: bridge.to_owned() }
    }

    /// Lets the bridge's packets through where a policy would drop them. Cheap where there is nothing to do.
    pub(crate) fn open(&self) -> Option<NetworkFact> {
        let outcomes = FAMILIES.map(|family| {
            let nftables = self.open_nftables(family).map_err(|error| error.to_string())?;
            Ok(nftables | self.open_legacy(family).map_err(|error| error.to_string())?)
        });
        let drops = outcomes.contains(&Ok(true)).then(|| NetworkFact::ForwardPolicyDrop(self.bridge.clone()));
        let refused = outcomes.into_iter().find_map(Result::err);
        refused.map(NetworkFact::ForwardPolicyStays).or(drops)
    }

    /// The rules in the table of the older iptables; true where its policy drops.
    fn open_legacy(&self, family: Family) -> io::Result<bool> {
        if !legacy::exists(family) {
            return Ok(false);
        }
        let bridge = self.bridge.as_str();
        let mut rules = vec![legacy::Rule { input: "", output: bridge, accept: true }];
        if legacy::has_chain(family, DOCKER)? {
            let leave = |output| legacy::Rule { input: bridge, output, accept: false };
            rules.extend(DOCKER_BRIDGES.map(leave));
        }
        rules.push(legacy::Rule { input: bridge, output: "", accept: true });
        legacy::open(family, &self.comment(), &rules)
    }

    /// The rules in the table of today's iptables; true where its policy drops.
    fn open_nftables(&self, family: Family) -> Result<bool, NetlinkError> {
        let table = Table { family, name: TABLE };
        if nftables::chain_policy(table, CHAIN)? != Some(Policy::Drop) {
            return Ok(false);
        }
        let mark = self.mark();
        if !nftables::marked_rules(table, CHAIN, &mark)?.is_empty() {
            return Ok(true);
        }
        let bridge = self.bridge.as_str();
        let mut transaction = Transaction::default();
        transaction.append_rule(table, CHAIN, Some(&mark), |rule| {
            rule.output_interface_is(bridge).count().accept();
        });
        if nftables::chain_exists(table, DOCKER)? {
            for docker in DOCKER_BRIDGES {
                transaction.append_rule(table, CHAIN, Some(&mark), |rule| {
                    rule.input_interface_is(bridge).output_interface_is(docker).count().leave();
                });
            }
        }
        transaction.append_rule(table, CHAIN, Some(&mark), |rule| {
            rule.input_interface_is(bridge).count().accept();
        });
        transaction.commit()?;
        Ok(true)
    }

    /// Takes the rules back.
    pub(crate) fn close(&self) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::default();
        for family in FAMILIES {
            if legacy::exists(family) {
                legacy::close(family, &self.comment()).map_err(|source| NetlinkError::Refused {
                    operation: "take rules out of the older iptables' table `filter`".to_owned(),
                    detail: None,
                    source,
                })?;
            }
            let table = Table { family, name: TABLE };
            for handle in nftables::marked_rules(table, CHAIN, &self.mark())? {
                transaction.delete_rule(table, CHAIN, handle);
            }
        }
        transaction.commit()
    }

    fn comment(&self) -> String {
        format!("dory {}", self.bridge)
    }

    /// The rules' user data: a comment with the bridge's name.
    fn mark(&self) -> Vec<u8> {
        let text = self.comment() + "\0";
        let mut mark = vec![COMMENT, u8::try_from(text.len()).unwrap_or(u8::MAX)];
        mark.extend(text.bytes());
        mark
    }
}

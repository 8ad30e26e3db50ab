//! What the boxes of the laboratory are, as rulesets of nftables, and what the model must be to be the same.

use peerlink_sim::nat::{Class, Filtering, Hairpin, Mapping, NatCfg, Policy, Ports, Unsolicited};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// A router.
    Open,
    /// Lets in what was asked for; translates nothing.
    Firewall,
    /// Plain `masquerade`; what comes unasked is dropped, as home routers do.
    Masquerade,
    /// The same, but what comes unasked is answered.
    Refusing,
    /// `masquerade` and nothing else: what comes unasked, the router takes for itself.
    Naive,
    /// `masquerade fully-random`: symmetric.
    FullyRandom,
    /// The same, within 1024 ports.
    Block,
    /// A map of ports that everybody may use.
    FullCone,
    /// A map of ports and the addresses that were sent to.
    Restricted,
    /// Ports that are hashes of inside endpoint and remote address.
    PerAddress,
    /// Plain `masquerade`, and packets to itself are turned back.
    TurningBack,
    UdpDropped,
    UdpRejected,
    /// TCP to 80 and 443.
    WebOnly,
}

/// What comes in from the internet: answers, and what was translated inward.
const GUARD: &str = "
table inet guard {
  chain forward { type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname lan accept
    ct status dnat accept
  }
  chain input { type filter hook input priority 0; policy accept;
    iifname wan ct state new drop
  }
}
";

/// A map that is filled as packets go out, and how packets come in by it.
fn mapped(kind: &str, key: &str, inward: &str, outward: &str, more: &str) -> String {
    format!(
        "{GUARD}table ip nat {{
  map ends {{ type {kind} : ipv4_addr . inet_service; flags dynamic,timeout; timeout 120s; size 65535; }}
  chain pre {{ type nat hook prerouting priority dstnat;
    {inward} meta l4proto udp dnat ip to {key} map @ends
  }}
  chain post {{ type nat hook postrouting priority srcnat;
    oifname wan meta l4proto udp update @ends {{ {outward} : ip saddr . udp sport }}
    oifname wan masquerade
    {more}
  }}
}}"
    )
}

fn source(rule: &str) -> String {
    format!(
        "table ip nat {{
  chain post {{ type nat hook postrouting priority srcnat;
    {rule}
    oifname wan masquerade
  }}
}}
"
    )
}

/// What inside hosts may send.
fn only(rule: &str) -> String {
    format!(
        "table inet inside {{
  chain forward {{ type filter hook forward priority -1;
    {rule}
  }}
}}
"
    )
}

impl Rules {
    pub(crate) const ALL: [Self; 14] = [
        Self::Open,
        Self::Firewall,
        Self::Masquerade,
        Self::Refusing,
        Self::Naive,
        Self::FullyRandom,
        Self::Block,
        Self::FullCone,
        Self::Restricted,
        Self::PerAddress,
        Self::TurningBack,
        Self::UdpDropped,
        Self::UdpRejected,
        Self::WebOnly,
    ];

    /// Whether inside addresses are seen outside.
    pub(crate) fn is_public(self) -> bool {
        matches!(self, Self::Open | Self::Firewall)
    }

    /// For a box whose address outside is this one.
    pub(crate) fn text(self, wan: &str) -> String {
        let to_wan = format!("ip daddr {wan}");
        match self {
            Self::Open => String::new(),
            Self::Firewall => GUARD.to_owned(),
            Self::Masquerade => GUARD.to_owned() + &source(""),
            Self::Refusing => {
                let refuse = "table inet guard {
  chain input { type filter hook input priority 0; policy accept;
    iifname wan ct state new meta l4proto tcp reject with tcp reset
    iifname wan ct state new reject
  }
}
";
                refuse.to_owned() + &source("")
            }
            Self::Naive => source(""),
            Self::FullyRandom => GUARD.to_owned() + &source("oifname wan masquerade fully-random"),
            Self::Block => {
                let udp = "oifname wan meta l4proto udp masquerade to :40000-41023 fully-random";
                GUARD.to_owned() + &source(udp)
            }
            Self::FullCone => {
                let inward = format!("iifname wan {to_wan}");
                mapped("inet_service", "udp dport", &inward, "udp sport", "")
            }
            Self::Restricted => mapped(
                "ipv4_addr . inet_service",
                "ip saddr . udp dport",
                &format!("iifname wan {to_wan}"),
                "ip daddr . udp sport",
                "",
            ),
            Self::PerAddress => {
                let hash = "jhash ip saddr . udp sport . ip daddr mod 20000 offset 40000";
                GUARD.to_owned() + &source(&format!("oifname wan meta l4proto udp snat ip to {wan} : {hash}"))
            }
            Self::TurningBack => mapped(
                "inet_service",
                "udp dport",
                &format!("iifname lan {to_wan}"),
                "udp sport",
                &format!("iifname lan oifname lan ct status dnat snat to {wan}"),
            ),
            Self::UdpDropped => GUARD.to_owned() + &only("meta l4proto udp drop") + &source(""),
            Self::UdpRejected => {
                let reject = "meta l4proto udp reject with icmpx type admin-prohibited";
                GUARD.to_owned() + &only(reject) + &source("")
            }
            Self::WebOnly => {
                let web = "iifname lan meta l4proto udp drop
    iifname lan tcp dport != { 80, 443 } drop";
                GUARD.to_owned() + &only(web) + &source("")
            }
        }
    }

    /// The model that behaves the same.
    pub(crate) fn model(self) -> NatCfg {
        let home = Class::Home.cfg();
        match self {
            Self::Open => Class::Open.cfg(),
            Self::Firewall => NatCfg::firewall(),
            Self::Masquerade => home,
            Self::Refusing => NatCfg { unsolicited: Unsolicited::Reset, ..home },
            Self::Naive => Class::Naiv.cfg(),
            Self::FullyRandom => Class::Hard.cfg(),
            Self::Block => Class::Hblk.cfg(),
            Self::FullCone => Class::Cone.cfg(),
            Self::Restricted => Class::Adf.cfg(),
            Self::PerAddress => NatCfg::nat(Mapping::Address, Filtering::AddressPort, Ports::Random),
            Self::TurningBack => NatCfg { hairpin: Hairpin::ExternalSource, ..home },
            Self::UdpDropped => Class::Nudp.cfg(),
            Self::UdpRejected => NatCfg { udp: Policy::Reject, ..home },
            Self::WebOnly => Class::T443.cfg(),
        }
    }
}

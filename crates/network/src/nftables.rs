//! Messages to nftables: tables, chains, rules, sets and their elements, without any policy.
//!
//! A [`Transaction`] is applied by the kernel as a whole or not at all. The names of constants follow
//! `linux/netfilter/nf_tables.h`.

use std::fmt;

use crate::netlink::{self, Attributes, Batch, Channel, F_APPEND, F_CREATE, F_DUMP, Failure};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10 << 8;
const NEWTABLE: u16 = SUBSYSTEM;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const NEWRULE: u16 = SUBSYSTEM | 6;
const DELRULE: u16 = SUBSYSTEM | 8;
const NEWSET: u16 = SUBSYSTEM | 9;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const GETSETELEM: u16 = SUBSYSTEM | 13;
const DELSETELEM: u16 = SUBSYSTEM | 14;

/// Address family of a table.
pub const FAMILY_IPV4: u8 = 2;

/// Registers: `REG_n` are 16 bytes wide, and each is also four of four bytes (`REG32`).
pub const REG_VERDICT: u32 = 0;
pub const REG_1: u32 = 1;
pub const REG_2: u32 = 2;
const REG32_00: u32 = 8;

/// The four-byte register at this offset, counted from the start of [`REG_1`].
pub const fn reg32(index: u32) -> u32 {
    REG32_00 + index
}

pub const SET_INTERVAL: u32 = 0x4;
pub const SET_MAP: u32 = 0x8;
pub const SET_CONCAT: u32 = 0x80;
const ELEM_INTERVAL_END: u32 = 1;

/// A note for `nft list`, which would else take a name's bytes for a number in network order.
const NAME_IN_MEMORY_ORDER: [u8; 6] = [0, 4, 1, 0, 0, 0];

/// How `nft` shows a value; the kernel only stores the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    Ipv4,
    Protocol,
    Port,
    InterfaceName,
}

impl FieldType {
    const fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::InterfaceName => 41,
        }
    }

    /// Bytes, before the padding to four that each part of a concatenation gets.
    const fn length(self) -> u32 {
        match self {
            Self::Ipv4 => 4,
            Self::Protocol => 1,
            Self::Port => 2,
            Self::InterfaceName => 16,
        }
    }
}

/// Number and length in bytes of a concatenation.
fn concatenated(fields: &[FieldType]) -> (u32, u32) {
    match fields {
        [single] => (single.number(), single.length()),
        _ => fields.iter().fold((0, 0), |(number, length), field| {
            (number << 6 | field.number(), length + field.length().next_multiple_of(4))
        }),
    }
}

/// A named set, or a map if it has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    pub name: &'static str,
    pub key: &'static [FieldType],
    pub data: &'static [FieldType],
    pub interval: bool,
}

/// A member of a set, as bytes in the kernel's layout.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Element {
    pub key: Vec<u8>,
    /// Upper end of a range, in sets of ranges over several fields.
    pub key_end: Option<Vec<u8>>,
    pub data: Option<Vec<u8>>,
    /// In sets of ranges over one field: this key is the first that no longer belongs to the range.
    pub ends_interval: bool,
}

impl fmt::Debug for Element {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:02x?} - {:02x?} : {:02x?} {}", self.key, self.key_end, self.data, self.ends_interval)
    }
}

/// A chain that the kernel calls.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    pub kind: &'static str,
    pub number: u32,
    pub priority: i32,
}

/// What a chain does with packets that no rule decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Drop,
    Accept,
}

/// What a rule decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Drop,
    Accept,
    Return,
    Jump(&'static str),
    Goto(&'static str),
}

/// Changes to one table that take effect together.
#[derive(Debug)]
pub struct Transaction<'a> {
    batch: Batch,
    table: &'a str,
}

/// `struct nfgenmsg`.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

impl<'a> Transaction<'a> {
    pub fn new(table: &'a str) -> Self {
        let mut batch = Batch::new();
        batch.push_unacknowledged("begin", BATCH_BEGIN, 0, &header(0, SUBSYSTEM >> 8), |_| {});
        Self { batch, table }
    }

    /// True if nothing would be changed.
    pub fn is_empty(&self) -> bool {
        self.batch.byte_count() <= 20
    }

    /// Have the kernel apply all of it.
    pub fn commit(mut self, channel: Channel<'_>) -> Result<(), Failure> {
        if self.is_empty() {
            return Ok(());
        }
        self.batch.push_unacknowledged("end", BATCH_END, 0, &header(0, SUBSYSTEM >> 8), |_| {});
        channel.execute(self.batch)
    }

    fn push(&mut self, step: &'static str, kind: u16, flags: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        self.batch.push(step, kind, flags, &header(FAMILY_IPV4, 0), body);
    }

    /// Make the table, unless it is there.
    pub fn add_table(&mut self) {
        let table = self.table;
        self.push("add table", NEWTABLE, F_CREATE, |body| {
            body.text(1, table).be32(2, 0);
        });
    }

    /// Delete the table with all that is in it.
    pub fn delete_table(&mut self) {
        let table = self.table;
        self.push("delete table", DELTABLE, 0, |body| {
            body.text(1, table);
        });
    }

    /// Make a chain, unless it is there. A policy that is not given stays as it was.
    pub fn add_chain(&mut self, name: &str, hook: Option<Hook>, policy: Option<Policy>) {
        let table = self.table;
        self.push("add chain", NEWCHAIN, F_CREATE, |body| {
            body.text(1, table).text(3, name);
            if let Some(hook) = hook {
                body.nest(4, |nest| {
                    nest.be32(1, hook.number).be32(2, hook.priority.cast_unsigned());
                });
                if let Some(policy) = policy {
                    body.be32(5, u32::from(policy == Policy::Accept));
                }
                body.text(7, hook.kind);
            }
        });
    }

    /// Delete all rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        let table = self.table;
        self.push("flush chain", DELRULE, 0, |body| {
            body.text(1, table).text(2, name);
        });
    }

    /// Append a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, expressions: &[Expression]) {
        let table = self.table;
        self.push("add rule", NEWRULE, F_CREATE | F_APPEND, |body| {
            body.text(1, table).text(2, chain).nest(4, |list| {
                for expression in expressions {
                    list.nest(1, |nest| expression.write(nest));
                }
            });
        });
    }

    /// Make a set or map, unless it is there. `id` must differ between the sets of one transaction.
    pub fn add_set(&mut self, set: &Set, id: u32) {
        let table = self.table;
        let (key_type, key_length) = concatenated(set.key);
        let mut flags = if set.interval { SET_INTERVAL } else { 0 };
        if !set.data.is_empty() {
            flags |= SET_MAP;
        }
        // Ranges over several fields need a set type that knows where the fields lie.
        let has_fields = set.interval && set.key.len() > 1;
        if has_fields {
            flags |= SET_CONCAT;
        }
        self.push("add set", NEWSET, F_CREATE, |body| {
            body.text(1, table).text(2, set.name).be32(3, flags).be32(4, key_type).be32(5, key_length);
            if !set.data.is_empty() {
                let (data_type, data_length) = concatenated(set.data);
                body.be32(6, data_type).be32(7, data_length);
            }
            body.be32(10, id);
            if set.key == [FieldType::InterfaceName] {
                body.bytes(13, &NAME_IN_MEMORY_ORDER);
            }
            if has_fields {
                body.nest(9, |description| {
                    description.nest(2, |fields| {
                        for field in set.key {
                            fields.nest(1, |nest| {
                                nest.be32(1, field.length());
                            });
                        }
                    });
                });
            }
        });
    }

    pub fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements("add element", NEWSETELEM, F_CREATE, set, elements);
    }

    /// Delete elements; one that is not there makes the transaction fail.
    pub fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements("delete element", DELSETELEM, 0, set, elements);
    }

    fn elements(&mut self, step: &'static str, kind: u16, flags: u16, set: &str, elements: &[Element]) {
        let table = self.table;
        // The list is one attribute, whose length is a 16-bit number.
        for chunk in elements.chunks(256) {
            self.push(step, kind, flags, |body| {
                body.text(1, table).text(2, set).nest(3, |list| {
                    for element in chunk {
                        list.nest(1, |nest| element.write(nest));
                    }
                });
            });
        }
    }
}

impl Element {
    fn write(&self, body: &mut Attributes<'_>) {
        let value = |nest: &mut Attributes<'_>, bytes: &[u8]| {
            nest.bytes(1, bytes);
        };
        body.nest(1, |nest| value(nest, &self.key));
        if let Some(end) = &self.key_end {
            body.nest(10, |nest| value(nest, end));
        }
        if let Some(data) = &self.data {
            body.nest(2, |nest| value(nest, data));
        }
        if self.ends_interval {
            body.be32(3, ELEM_INTERVAL_END);
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let value =
            |kind| netlink::find(bytes, kind).and_then(|nest| netlink::find(nest, 1)).map(<[u8]>::to_vec);
        let flags =
            netlink::find(bytes, 3).and_then(|flags| flags.try_into().ok()).map_or(0, u32::from_be_bytes);
        Some(Self {
            key: value(1)?,
            key_end: value(10),
            data: value(2),
            ends_interval: flags & ELEM_INTERVAL_END != 0,
        })
    }
}

/// All members of a set.
pub fn elements(channel: Channel<'_>, table: &str, set: &str) -> Result<Vec<Element>, Failure> {
    let mut batch = Batch::new();
    batch.push("list elements", GETSETELEM, F_DUMP, &header(FAMILY_IPV4, 0), |body| {
        body.text(1, table).text(2, set);
    });
    let mut found = Vec::new();
    channel.query(batch, |message| {
        let list = message.payload.get(4..).and_then(|body| netlink::find(body, 3));
        let members = netlink::attributes(list.unwrap_or_default());
        found.extend(members.filter_map(|(_, bytes)| Element::read(bytes)));
    })?;
    Ok(found)
}

/// Keys that [`Expression::Meta`] loads.
pub const META_IIFNAME: u32 = 6;
pub const META_OIFNAME: u32 = 7;
pub const META_L4PROTO: u32 = 16;
/// Keys that [`Expression::Conntrack`] loads.
pub const CT_STATE: u32 = 0;
pub const CT_STATUS: u32 = 2;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
/// Headers that [`Expression::Payload`] reads from.
pub const NETWORK_HEADER: u32 = 1;
pub const TRANSPORT_HEADER: u32 = 2;

/// One step of a rule. Steps run in order; one that does not match ends the rule.
#[derive(Debug, Clone, Copy)]
pub enum Expression {
    /// Load a property of the packet.
    Meta { key: u32, to: u32 },
    /// Load bytes of a header.
    Payload { base: u32, offset: u32, length: u32, to: u32 },
    /// Load a property of the packet's flow.
    Conntrack { key: u32, to: u32 },
    /// Go on if the register equals these bytes.
    Equals { register: u32, value: &'static [u8] },
    /// Go on if the four-byte register is not zero.
    NotZero { register: u32 },
    /// Clear the bits of a four-byte register that are not in the mask.
    Mask { register: u32, mask: u32 },
    /// Go on if the set has the key; a map's value is loaded.
    Lookup { set: &'static str, from: u32, to: Option<u32> },
    /// Load the type (`RTN_*`) of the route to the packet's destination.
    DestinationType { to: u32 },
    /// Rewrite the destination.
    Dnat { address: u32, port: u32 },
    /// Rewrite the source to the address of the outgoing link.
    Masquerade,
    /// Count packets and bytes.
    Counter,
    /// Decide.
    Verdict(Verdict),
}

impl Expression {
    fn write(&self, body: &mut Attributes<'_>) {
        match *self {
            Self::Meta { key, to } => expression(body, "meta", |data| {
                data.be32(1, to).be32(2, key);
            }),
            Self::Payload { base, offset, length, to } => expression(body, "payload", |data| {
                data.be32(1, to).be32(2, base).be32(3, offset).be32(4, length);
            }),
            Self::Conntrack { key, to } => expression(body, "ct", |data| {
                data.be32(1, to).be32(2, key);
            }),
            Self::Equals { register, value } => compare(body, register, CMP_EQ, value),
            Self::NotZero { register } => compare(body, register, CMP_NEQ, &[0; 4]),
            Self::Mask { register, mask } => expression(body, "bitwise", |data| {
                data.be32(1, register).be32(2, register).be32(3, 4);
                data.nest(4, |value| {
                    value.u32(1, mask);
                });
                data.nest(5, |value| {
                    value.u32(1, 0);
                });
            }),
            Self::Lookup { set, from, to } => expression(body, "lookup", |data| {
                data.text(1, set).be32(2, from);
                if let Some(to) = to {
                    data.be32(3, to);
                }
            }),
            Self::DestinationType { to } => expression(body, "fib", |data| {
                let (result_address_type, flag_destination) = (3, 2);
                data.be32(1, to).be32(2, result_address_type).be32(3, flag_destination);
            }),
            Self::Dnat { address, port } => expression(body, "nat", |data| {
                let dnat = 1;
                data.be32(1, dnat).be32(2, u32::from(FAMILY_IPV4)).be32(3, address).be32(5, port);
            }),
            Self::Masquerade => expression(body, "masq", |_| {}),
            Self::Counter => expression(body, "counter", |_| {}),
            Self::Verdict(verdict) => expression(body, "immediate", |data| {
                data.be32(1, REG_VERDICT).nest(2, |value| {
                    value.nest(2, |nest| write_verdict(nest, verdict));
                });
            }),
        }
    }
}

fn expression(body: &mut Attributes<'_>, name: &str, data: impl FnOnce(&mut Attributes<'_>)) {
    body.text(1, name).nest(2, data);
}

fn compare(body: &mut Attributes<'_>, register: u32, operator: u32, value: &[u8]) {
    expression(body, "cmp", |data| {
        data.be32(1, register).be32(2, operator).nest(3, |nest| {
            nest.bytes(1, value);
        });
    });
}

fn write_verdict(nest: &mut Attributes<'_>, verdict: Verdict) {
    let (code, chain): (i32, _) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    nest.be32(1, code.cast_unsigned());
    if let Some(chain) = chain {
        nest.text(2, chain);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_element_reads_back_as_it_was_written() {
        let element = Element {
            key: vec![1; 20],
            key_end: Some(vec![2; 20]),
            data: Some(vec![3; 8]),
            ends_interval: true,
        };
        let mut change = Transaction::new("table");
        change.add_elements("set", std::slice::from_ref(&element));
        let bytes = change.batch.bytes();
        let message = netlink::messages(bytes).nth(1).unwrap();
        let list = netlink::find(&message.payload[4..], 3).unwrap();
        let (_, member) = netlink::attributes(list).next().unwrap();
        assert_eq!(Element::read(member), Some(element));
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            let _ = Element::read(&bytes);
        }
    }
}

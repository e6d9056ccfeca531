//! Flows that the kernel remembers (connection tracking): finding those of a container, and ending them.
//!
//! A flow keeps its address translation for as long as packets come. UDP has no end of its own, so a
//! client that goes on sending would be led to a container that is gone, or past one that is new.

use std::net::Ipv4Addr;

use rustix::io::Errno;

use crate::netlink::{self, Batch, Channel, F_DUMP, Failure};

const CT_GET: u16 = 1 << 8 | 1;
const CT_DELETE: u16 = 1 << 8 | 2;
const AF_INET: u8 = 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const FILTER_IP_SRC: u32 = 1 << 0;
const FILTER_PROTO_NUM: u32 = 1 << 3;
const FILTER_PROTO_DST_PORT: u32 = 1 << 5;

const UDP: u8 = 17;

/// Which flows to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flows {
    /// Those whose answers come from this address.
    AnsweredBy(Ipv4Addr),
    /// UDP flows to this port of any address.
    UdpTo(u16),
}

/// What a flow was asked for and by whom it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flow {
    /// The attribute that names it, as the kernel wrote it.
    original: Vec<u8>,
    id: Option<[u8; 4]>,
    protocol: u8,
    port: u16,
    answered_by: Ipv4Addr,
}

/// End all flows of a kind. Flows that end by themselves meanwhile are no error.
pub fn end(channel: Channel<'_>, which: Flows) -> Result<(), Failure> {
    let mut batch = Batch::new();
    for flow in list(channel, which)? {
        batch.push("end flow", CT_DELETE, 0, &[AF_INET, 0, 0, 0], |body| {
            body.nest(CTA_TUPLE_ORIG, |tuple| {
                tuple.raw(&flow.original);
            });
            if let Some(id) = flow.id {
                body.bytes(CTA_ID, &id);
            }
        });
        if batch.byte_count() > 64 * 1024 {
            run(channel, std::mem::take(&mut batch))?;
        }
    }
    run(channel, batch)
}

fn run(channel: Channel<'_>, batch: Batch) -> Result<(), Failure> {
    match channel.execute_all(batch).into_iter().find(|failure| failure.errno != Errno::NOENT) {
        None => Ok(()),
        Some(failure) => Err(failure),
    }
}

fn list(channel: Channel<'_>, which: Flows) -> Result<Vec<Flow>, Failure> {
    let mut batch = Batch::new();
    // Kernels before 5.8 ignore the filter and send all flows, so what comes is looked at again.
    batch.push("list flows", CT_GET, F_DUMP, &[AF_INET, 0, 0, 0], |body| match which {
        Flows::AnsweredBy(address) => {
            body.nest(CTA_TUPLE_REPLY, |tuple| {
                tuple.nest(CTA_TUPLE_IP, |ip| {
                    ip.bytes(CTA_IP_V4_SRC, &address.octets());
                });
            });
            body.nest(CTA_FILTER, |filter| {
                filter.u32(CTA_FILTER_ORIG_FLAGS, 0).u32(CTA_FILTER_REPLY_FLAGS, FILTER_IP_SRC);
            });
        }
        Flows::UdpTo(port) => {
            body.nest(CTA_TUPLE_ORIG, |tuple| {
                tuple.nest(CTA_TUPLE_PROTO, |proto| {
                    proto.u8(CTA_PROTO_NUM, UDP).be16(CTA_PROTO_DST_PORT, port);
                });
            });
            body.nest(CTA_FILTER, |filter| {
                filter
                    .u32(CTA_FILTER_ORIG_FLAGS, FILTER_PROTO_NUM | FILTER_PROTO_DST_PORT)
                    .u32(CTA_FILTER_REPLY_FLAGS, 0);
            });
        }
    });
    let mut found = Vec::new();
    channel.query(batch, |message| {
        if let Some(flow) = message.payload.get(4..).and_then(read)
            && matches(&flow, which)
        {
            found.push(flow);
        }
    })?;
    Ok(found)
}

fn matches(flow: &Flow, which: Flows) -> bool {
    match which {
        Flows::AnsweredBy(address) => flow.answered_by == address,
        Flows::UdpTo(port) => flow.protocol == UDP && flow.port == port,
    }
}

fn read(body: &[u8]) -> Option<Flow> {
    let original = netlink::find(body, CTA_TUPLE_ORIG)?;
    let proto = netlink::find(original, CTA_TUPLE_PROTO)?;
    let reply = netlink::find(body, CTA_TUPLE_REPLY)?;
    let source = netlink::find(netlink::find(reply, CTA_TUPLE_IP)?, CTA_IP_V4_SRC)?;
    let port = netlink::find(proto, CTA_PROTO_DST_PORT).and_then(|port| port.try_into().ok());
    Some(Flow {
        original: original.to_vec(),
        id: netlink::find(body, CTA_ID).and_then(|id| id.try_into().ok()),
        protocol: *netlink::find(proto, CTA_PROTO_NUM)?.first()?,
        port: port.map_or(0, u16::from_be_bytes),
        answered_by: Ipv4Addr::from(<[u8; 4]>::try_from(source).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = read(&bytes);
        }
    }
}

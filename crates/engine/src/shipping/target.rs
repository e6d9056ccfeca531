//! One container's receiver: what its records become, and how hard it is tried.

use std::time::Duration;

use logs::wire::{fluentd, gelf, journald, syslog};
use logs::{Options, Reader};
use model::Refusal;
use model::create::Record;
use model::logging::{self, Address, GelfCompression, Logging, Receiver, SyslogFormat, TlsFiles};
use model::time::rfc3339_nano;

use super::connection::Timeouts;

/// Bytes and records of one batch.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_RECORDS: u32 = 4096;

/// Records that are sent together.
#[derive(Debug, Default)]
pub struct Batch {
    pub bytes: Vec<u8>,
    /// Where its messages end.
    ends: Vec<usize>,
    pub count: u32,
    /// Number of its last record.
    pub last: u64,
    /// The first number that was expected and not found, and how many are missing.
    pub missing: Option<(u64, u64)>,
    /// Records that no receiver could take.
    pub unfit: u64,
    /// The receiver is to acknowledge it by this.
    pub chunk: Option<String>,
}

impl Batch {
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

#[derive(Debug)]
enum Encoder {
    Syslog(syslog::Encoder),
    Journald(journald::Encoder),
    Gelf(gelf::Encoder),
    Fluentd { encoder: fluentd::Encoder, acknowledged: bool },
}

/// How often and after what time it is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub first: Duration,
    pub factor: f64,
    pub most: Duration,
    /// Attempts before what waits is given up; none: forever.
    pub attempts_max: Option<u64>,
}

/// Where one container's records go, and in what form.
#[derive(Debug)]
pub struct Target {
    pub address: Address,
    pub tls: TlsFiles,
    pub timeouts: Timeouts,
    /// The container does not start without a connection.
    pub needed: bool,
    pub patience: Patience,
    /// A connection is not used for longer.
    pub connection_age_max: Option<Duration>,
    batch_bytes: usize,
    encoder: Encoder,
}

impl Target {
    /// None if the container's records stay on this host.
    pub fn of(record: &Record, host: &str) -> Result<Option<Target>, Refusal> {
        let Some(receiver) = Logging::of(&record.host_config.log_config)?.receiver else { return Ok(None) };
        let tag = logging::tag(record, "{{.ID}}")?;
        let mut target = Target {
            address: Address::SystemLog,
            tls: TlsFiles::default(),
            timeouts: Timeouts::default(),
            needed: true,
            patience: Patience {
                first: Duration::from_millis(100),
                factor: 2.0,
                most: Duration::from_secs(5),
                attempts_max: None,
            },
            connection_age_max: None,
            batch_bytes: BATCH_BYTES,
            encoder: match &receiver {
                Receiver::Syslog(settings) => Encoder::Syslog(syslog_encoder(settings, host, tag)),
                Receiver::Journald => Encoder::Journald(journald_encoder(record, tag)?),
                Receiver::Gelf(settings) => Encoder::Gelf(gelf_encoder(settings, record, host, tag)?),
                Receiver::Fluentd(settings) => Encoder::Fluentd {
                    encoder: fluentd_encoder(settings, record, &tag)?,
                    acknowledged: settings.acknowledged,
                },
            },
        };
        match receiver {
            Receiver::Syslog(settings) => (target.address, target.tls) = (settings.address, settings.tls),
            Receiver::Journald => target.address = Address::UnixDatagram(journald::SOCKET.into()),
            Receiver::Gelf(settings) => {
                target.address = settings.address;
                let delay = settings.reconnect_delay.max(Duration::from_millis(10));
                target.patience = Patience {
                    first: delay,
                    factor: 1.0,
                    most: delay,
                    attempts_max: settings.reconnects_max,
                };
            }
            Receiver::Fluentd(settings) => {
                target.address = settings.address;
                target.needed = !settings.asynchronous;
                target.timeouts = Timeouts { write: settings.write_timeout, read: settings.read_timeout };
                target.batch_bytes = settings.buffer_limit.clamp(1, BATCH_BYTES);
                target.connection_age_max = settings.reconnect_interval.filter(|_| settings.asynchronous);
                target.patience = Patience {
                    first: settings.retry_wait.max(Duration::from_millis(10)),
                    factor: 1.5,
                    most: Duration::from_secs(60),
                    attempts_max: settings.retries_max,
                };
            }
        }
        Ok(Some(target))
    }

    /// What a failure to connect reads like, in Docker's words.
    pub fn refused(&self, refusal: Refusal) -> Refusal {
        let message = match (&self.encoder, &self.address) {
            (Encoder::Journald(_), _) => "journald is not enabled on this host".into(),
            (Encoder::Gelf(_), Address::Tcp(host) | Address::Udp(host)) => {
                format!("gelf: cannot connect to GELF endpoint: {host} {}", refusal.message)
            }
            _ => refusal.message,
        };
        Refusal { message, ..refusal }
    }

    /// Reads and encodes what comes next; blocks. `expected`: the number of the next record.
    pub fn batch(&mut self, reader: &mut Reader, mut expected: u64) -> Result<Batch, logs::Error> {
        let mut batch = Batch::default();
        while batch.bytes.len() < self.batch_bytes && batch.count < BATCH_RECORDS {
            let Some(record) = reader.next()? else { break };
            if record.number > expected {
                let (_, missing) = batch.missing.unwrap_or((expected, 0));
                batch.missing = Some((expected, missing + record.number - expected));
            }
            expected = record.number + 1;
            match &mut self.encoder {
                Encoder::Syslog(encoder) => encoder.append(&record, &mut batch.bytes),
                Encoder::Journald(encoder) => encoder.append(&record, &mut batch.bytes),
                Encoder::Gelf(encoder) => {
                    let ends = &mut batch.ends;
                    let fits = encoder.append(&record, &mut batch.bytes, |bytes| ends.push(bytes.len()));
                    batch.unfit += u64::from(!fits);
                }
                Encoder::Fluentd { encoder, acknowledged: true } => {
                    encoder.append_entry(&record, &mut batch.bytes);
                }
                Encoder::Fluentd { encoder, .. } => encoder.append(&record, &mut batch.bytes),
            }
            batch.count += 1;
            batch.last = record.number;
            if !matches!(self.encoder, Encoder::Gelf(_)) {
                batch.ends.push(batch.bytes.len());
            }
        }
        if batch.count == 0 {
            reader.release();
        }
        if let Encoder::Fluentd { encoder, acknowledged: true } = &self.encoder
            && batch.count > 0
        {
            let chunk = format!("{:016x}{:016x}", crate::clock::random_number(), batch.last);
            let (before, after) = encoder.frame(batch.count, &chunk);
            batch.bytes.splice(..0, before);
            batch.bytes.extend_from_slice(&after);
            batch.chunk = Some(chunk);
        }
        Ok(batch)
    }
}

fn syslog_encoder(settings: &logging::Syslog, host: &str, tag: String) -> syslog::Encoder {
    let format = match settings.format {
        SyslogFormat::Unix => syslog::Format::Unix,
        SyslogFormat::Rfc3164 => syslog::Format::Rfc3164,
        SyslogFormat::Rfc5424 => syslog::Format::Rfc5424 { microseconds: false },
        SyslogFormat::Rfc5424Micro => syslog::Format::Rfc5424 { microseconds: true },
    };
    let modern = matches!(format, syslog::Format::Rfc5424 { .. });
    syslog::Encoder {
        format,
        facility: settings.facility,
        counted: modern && matches!(settings.address, Address::Tls(_)),
        host: host.into(),
        tag,
        pid: std::process::id(),
        offset: sys::time::utc_offset,
    }
}

fn journald_encoder(record: &Record, tag: String) -> Result<journald::Encoder, Refusal> {
    let mut fields = logging::attributes(record, journald::field_name)?;
    for (name, value) in [
        ("CONTAINER_ID", record.id.chars().take(12).collect()),
        ("CONTAINER_ID_FULL", record.id.clone()),
        ("CONTAINER_NAME", record.name.clone()),
        ("CONTAINER_TAG", tag.clone()),
        ("CONTAINER_LOG_EPOCH", record.id.clone()),
        ("IMAGE_NAME", record.config.image.clone()),
        ("SYSLOG_IDENTIFIER", tag),
    ] {
        fields.entry(name.into()).or_insert(value);
    }
    Ok(journald::Encoder::new(&fields))
}

fn gelf_encoder(
    settings: &logging::Gelf,
    record: &Record,
    host: &str,
    tag: String,
) -> Result<gelf::Encoder, Refusal> {
    let underscored = |name: &str| if name.starts_with('_') { name.into() } else { format!("_{name}") };
    let mut extra = logging::attributes(record, underscored)?;
    for (name, value) in [
        ("_container_id", record.id.clone()),
        ("_container_name", record.name.clone()),
        ("_image_id", record.image_id.clone()),
        ("_image_name", record.config.image.clone()),
        ("_command", record.command().join(" ")),
        ("_tag", tag),
        ("_created", rfc3339_nano(record.created)),
    ] {
        extra.entry(name.into()).or_insert(value);
    }
    let packing = match (&settings.address, settings.compression) {
        (Address::Tcp(_), _) => gelf::Packing::ZeroEnded,
        (_, GelfCompression::Gzip) => gelf::Packing::Gzip(settings.level),
        (_, GelfCompression::Zlib) => gelf::Packing::Zlib(settings.level),
        (_, GelfCompression::None) => gelf::Packing::Plain,
    };
    Ok(gelf::Encoder::new(packing, host, &extra))
}

fn fluentd_encoder(
    settings: &logging::Fluentd,
    record: &Record,
    tag: &str,
) -> Result<fluentd::Encoder, Refusal> {
    let mut shared = logging::attributes(record, str::to_string)?;
    for (name, value) in
        [("container_id", record.id.clone()), ("container_name", format!("/{}", record.name))]
    {
        shared.entry(name.into()).or_insert(value);
    }
    Ok(fluentd::Encoder::new(tag, &shared, settings.nanoseconds))
}

/// The files that a container's records are shipped from.
#[derive(Debug, Clone)]
pub struct Spool {
    pub files: Options,
    pub cursor: std::path::PathBuf,
}

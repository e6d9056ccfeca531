//! The Go types behind `inspect`, `events`, `version` and `info`, as far as templates can see them: which fields there are, and what they are when the
//! daemon leaves them out. `{{if .State.Health}}` works on a container without health checks because of this.

use template::Field;
use template::Type::{self, Any, Bool, Int, KeyedMap, Map, Ptr, Slice, Str, Struct};

const fn field(name: &'static str, ty: &'static Type) -> Field {
    Field::same(name, ty)
}

const PORT_BINDING: Type = Struct(
    "nat.PortBinding",
    &[Field::keyed("HostIP", "HostIp", &Str), Field::keyed("HostPort", "HostPort", &Str)],
);
const HEALTH_RESULT: Type = Struct(
    "container.HealthcheckResult",
    &[field("Start", &Str), field("End", &Str), field("ExitCode", &Int), field("Output", &Str)],
);
const HEALTH: Type = Struct(
    "container.Health",
    &[field("Status", &Str), field("FailingStreak", &Int), field("Log", &Slice(&Ptr(&HEALTH_RESULT)))],
);
const STATE: Type = Struct(
    "container.State",
    &[
        field("Status", &Str),
        field("Running", &Bool),
        field("Paused", &Bool),
        field("Restarting", &Bool),
        field("OOMKilled", &Bool),
        field("Dead", &Bool),
        field("Pid", &Int),
        field("ExitCode", &Int),
        field("Error", &Str),
        field("StartedAt", &Str),
        field("FinishedAt", &Str),
        field("Health", &Ptr(&HEALTH)),
    ],
);
const HEALTH_CONFIG: Type = Struct(
    "container.HealthConfig",
    &[
        field("Test", &Slice(&Str)),
        field("Interval", &Int),
        field("Timeout", &Int),
        field("StartPeriod", &Int),
        field("StartInterval", &Int),
        field("Retries", &Int),
    ],
);
const EMPTY: Type = Struct("struct {}", &[]);
const CONFIG: Type = Struct(
    "container.Config",
    &[
        field("Hostname", &Str),
        field("Domainname", &Str),
        field("User", &Str),
        field("AttachStdin", &Bool),
        field("AttachStdout", &Bool),
        field("AttachStderr", &Bool),
        field("ExposedPorts", &KeyedMap("nat.Port", &EMPTY)),
        field("Tty", &Bool),
        field("OpenStdin", &Bool),
        field("StdinOnce", &Bool),
        field("Env", &Slice(&Str)),
        field("Cmd", &Slice(&Str)),
        field("Healthcheck", &Ptr(&HEALTH_CONFIG)),
        field("ArgsEscaped", &Bool),
        field("Image", &Str),
        field("Volumes", &Map(&EMPTY)),
        field("WorkingDir", &Str),
        field("Entrypoint", &Slice(&Str)),
        field("NetworkDisabled", &Bool),
        field("MacAddress", &Str),
        field("OnBuild", &Slice(&Str)),
        field("Labels", &Map(&Str)),
        field("StopSignal", &Str),
        field("StopTimeout", &Ptr(&Int)),
        field("Shell", &Slice(&Str)),
    ],
);
const LOG_CONFIG: Type = Struct("container.LogConfig", &[field("Type", &Str), field("Config", &Map(&Str))]);
const RESTART_POLICY: Type =
    Struct("container.RestartPolicy", &[field("Name", &Str), field("MaximumRetryCount", &Int)]);
const WEIGHT_DEVICE: Type = Struct("blkiodev.WeightDevice", &[field("Path", &Str), field("Weight", &Int)]);
const THROTTLE_DEVICE: Type = Struct("blkiodev.ThrottleDevice", &[field("Path", &Str), field("Rate", &Int)]);
const DEVICE_MAPPING: Type = Struct(
    "container.DeviceMapping",
    &[field("PathOnHost", &Str), field("PathInContainer", &Str), field("CgroupPermissions", &Str)],
);
const DEVICE_REQUEST: Type = Struct(
    "container.DeviceRequest",
    &[
        field("Driver", &Str),
        field("Count", &Int),
        field("DeviceIDs", &Slice(&Str)),
        field("Capabilities", &Slice(&Slice(&Str))),
        field("Options", &Map(&Str)),
    ],
);
const ULIMIT: Type = Struct("units.Ulimit", &[field("Name", &Str), field("Hard", &Int), field("Soft", &Int)]);
const HOST_CONFIG: Type = Struct(
    "container.HostConfig",
    &[
        field("Binds", &Slice(&Str)),
        field("ContainerIDFile", &Str),
        field("LogConfig", &LOG_CONFIG),
        field("NetworkMode", &Str),
        field("PortBindings", &KeyedMap("nat.Port", &Slice(&PORT_BINDING))),
        field("RestartPolicy", &RESTART_POLICY),
        field("AutoRemove", &Bool),
        field("VolumeDriver", &Str),
        field("VolumesFrom", &Slice(&Str)),
        field("ConsoleSize", &Slice(&Int)),
        field("Annotations", &Map(&Str)),
        field("CapAdd", &Slice(&Str)),
        field("CapDrop", &Slice(&Str)),
        field("CgroupnsMode", &Str),
        Field::keyed("DNS", "Dns", &Slice(&Str)),
        Field::keyed("DNSOptions", "DnsOptions", &Slice(&Str)),
        Field::keyed("DNSSearch", "DnsSearch", &Slice(&Str)),
        field("ExtraHosts", &Slice(&Str)),
        field("GroupAdd", &Slice(&Str)),
        field("IpcMode", &Str),
        field("Cgroup", &Str),
        field("Links", &Slice(&Str)),
        field("OomScoreAdj", &Int),
        field("PidMode", &Str),
        field("Privileged", &Bool),
        field("PublishAllPorts", &Bool),
        field("ReadonlyRootfs", &Bool),
        field("SecurityOpt", &Slice(&Str)),
        field("StorageOpt", &Map(&Str)),
        field("Tmpfs", &Map(&Str)),
        field("UTSMode", &Str),
        field("UsernsMode", &Str),
        field("ShmSize", &Int),
        field("Sysctls", &Map(&Str)),
        field("Runtime", &Str),
        field("Isolation", &Str),
        Field::keyed("CPUShares", "CpuShares", &Int),
        field("Memory", &Int),
        Field::keyed("NanoCPUs", "NanoCpus", &Int),
        field("CgroupParent", &Str),
        field("BlkioWeight", &Int),
        field("BlkioWeightDevice", &Slice(&Ptr(&WEIGHT_DEVICE))),
        field("BlkioDeviceReadBps", &Slice(&Ptr(&THROTTLE_DEVICE))),
        field("BlkioDeviceWriteBps", &Slice(&Ptr(&THROTTLE_DEVICE))),
        field("BlkioDeviceReadIOps", &Slice(&Ptr(&THROTTLE_DEVICE))),
        field("BlkioDeviceWriteIOps", &Slice(&Ptr(&THROTTLE_DEVICE))),
        Field::keyed("CPUPeriod", "CpuPeriod", &Int),
        Field::keyed("CPUQuota", "CpuQuota", &Int),
        Field::keyed("CPURealtimePeriod", "CpuRealtimePeriod", &Int),
        Field::keyed("CPURealtimeRuntime", "CpuRealtimeRuntime", &Int),
        field("CpusetCpus", &Str),
        field("CpusetMems", &Str),
        field("Devices", &Slice(&DEVICE_MAPPING)),
        field("DeviceCgroupRules", &Slice(&Str)),
        field("DeviceRequests", &Slice(&DEVICE_REQUEST)),
        field("MemoryReservation", &Int),
        field("MemorySwap", &Int),
        field("MemorySwappiness", &Ptr(&Int)),
        field("OomKillDisable", &Ptr(&Bool)),
        field("PidsLimit", &Ptr(&Int)),
        field("Ulimits", &Slice(&Ptr(&ULIMIT))),
        Field::keyed("CPUCount", "CpuCount", &Int),
        Field::keyed("CPUPercent", "CpuPercent", &Int),
        field("IOMaximumIOps", &Int),
        field("IOMaximumBandwidth", &Int),
        field("Mounts", &Slice(&Any)),
        field("MaskedPaths", &Slice(&Str)),
        field("ReadonlyPaths", &Slice(&Str)),
        field("Init", &Ptr(&Bool)),
    ],
);
const ENDPOINT_IPAM: Type = Struct(
    "network.EndpointIPAMConfig",
    &[field("IPv4Address", &Str), field("IPv6Address", &Str), field("LinkLocalIPs", &Slice(&Str))],
);
const ENDPOINT: Type = Struct(
    "network.EndpointSettings",
    &[
        field("IPAMConfig", &Ptr(&ENDPOINT_IPAM)),
        field("Links", &Slice(&Str)),
        field("Aliases", &Slice(&Str)),
        field("MacAddress", &Str),
        field("DriverOpts", &Map(&Str)),
        field("GwPriority", &Int),
        field("NetworkID", &Str),
        field("EndpointID", &Str),
        field("Gateway", &Str),
        field("IPAddress", &Str),
        field("IPPrefixLen", &Int),
        field("IPv6Gateway", &Str),
        field("GlobalIPv6Address", &Str),
        field("GlobalIPv6PrefixLen", &Int),
        field("DNSNames", &Slice(&Str)),
    ],
);
const NETWORK_SETTINGS: Type = Struct(
    "container.NetworkSettings",
    &[
        field("Bridge", &Str),
        field("SandboxID", &Str),
        field("SandboxKey", &Str),
        field("Ports", &KeyedMap("nat.Port", &Slice(&PORT_BINDING))),
        field("HairpinMode", &Bool),
        field("LinkLocalIPv6Address", &Str),
        field("LinkLocalIPv6PrefixLen", &Int),
        field("SecondaryIPAddresses", &Slice(&Any)),
        field("SecondaryIPv6Addresses", &Slice(&Any)),
        field("EndpointID", &Str),
        field("Gateway", &Str),
        field("GlobalIPv6Address", &Str),
        field("GlobalIPv6PrefixLen", &Int),
        field("IPAddress", &Str),
        field("IPPrefixLen", &Int),
        field("IPv6Gateway", &Str),
        field("MacAddress", &Str),
        field("Networks", &Map(&Ptr(&ENDPOINT))),
    ],
);
const MOUNT_POINT: Type = Struct(
    "container.MountPoint",
    &[
        field("Type", &Str),
        field("Name", &Str),
        field("Source", &Str),
        field("Destination", &Str),
        field("Driver", &Str),
        field("Mode", &Str),
        field("RW", &Bool),
        field("Propagation", &Str),
    ],
);
const GRAPH_DRIVER: Type = Struct("storage.DriverData", &[field("Data", &Map(&Str)), field("Name", &Str)]);
const CONTAINER_INSPECT: Type = Struct(
    "container.InspectResponse",
    &[
        Field::keyed("ID", "Id", &Str),
        field("Created", &Str),
        field("Path", &Str),
        field("Args", &Slice(&Str)),
        field("State", &Ptr(&STATE)),
        field("Image", &Str),
        field("ResolvConfPath", &Str),
        field("HostnamePath", &Str),
        field("HostsPath", &Str),
        field("LogPath", &Str),
        field("Name", &Str),
        field("RestartCount", &Int),
        field("Driver", &Str),
        field("Platform", &Str),
        field("MountLabel", &Str),
        field("ProcessLabel", &Str),
        field("AppArmorProfile", &Str),
        field("ExecIDs", &Slice(&Str)),
        field("HostConfig", &Ptr(&HOST_CONFIG)),
        field("GraphDriver", &GRAPH_DRIVER),
        field("SizeRw", &Ptr(&Int)),
        field("SizeRootFs", &Ptr(&Int)),
        field("Mounts", &Slice(&MOUNT_POINT)),
        field("Config", &Ptr(&CONFIG)),
        field("NetworkSettings", &Ptr(&NETWORK_SETTINGS)),
        field("ImageManifestDescriptor", &Ptr(&Any)),
    ],
);
const ROOT_FS: Type = Struct("image.RootFS", &[field("Type", &Str), field("Layers", &Slice(&Str))]);
const IMAGE_METADATA: Type = Struct("image.Metadata", &[field("LastTagTime", &Str)]);
const IMAGE_CONFIG: Type = CONFIG;
const IMAGE_INSPECT: Type = Struct(
    "image.InspectResponse",
    &[
        Field::keyed("ID", "Id", &Str),
        field("RepoTags", &Slice(&Str)),
        field("RepoDigests", &Slice(&Str)),
        field("Parent", &Str),
        field("Comment", &Str),
        field("Created", &Str),
        field("DockerVersion", &Str),
        field("Author", &Str),
        field("Config", &Ptr(&IMAGE_CONFIG)),
        field("Architecture", &Str),
        field("Variant", &Str),
        field("Os", &Str),
        field("OsVersion", &Str),
        field("Size", &Int),
        field("VirtualSize", &Int),
        field("GraphDriver", &GRAPH_DRIVER),
        field("RootFS", &ROOT_FS),
        field("Metadata", &IMAGE_METADATA),
        field("Descriptor", &Ptr(&Any)),
        field("Manifests", &Slice(&Any)),
    ],
);
const IPAM_CONFIG: Type = Struct(
    "network.IPAMConfig",
    &[
        field("Subnet", &Str),
        field("IPRange", &Str),
        field("Gateway", &Str),
        Field::keyed("AuxAddress", "AuxiliaryAddresses", &Map(&Str)),
    ],
);
const IPAM: Type = Struct(
    "network.IPAM",
    &[field("Driver", &Str), field("Options", &Map(&Str)), field("Config", &Slice(&IPAM_CONFIG))],
);
const ENDPOINT_RESOURCE: Type = Struct(
    "network.EndpointResource",
    &[
        field("Name", &Str),
        field("EndpointID", &Str),
        field("MacAddress", &Str),
        field("IPv4Address", &Str),
        field("IPv6Address", &Str),
    ],
);
const CONFIG_REFERENCE: Type = Struct("network.ConfigReference", &[field("Network", &Str)]);
const NETWORK_INSPECT: Type = Struct(
    "network.Inspect",
    &[
        field("Name", &Str),
        Field::keyed("ID", "Id", &Str),
        field("Created", &Str),
        field("Scope", &Str),
        field("Driver", &Str),
        field("EnableIPv4", &Bool),
        field("EnableIPv6", &Bool),
        field("IPAM", &IPAM),
        field("Internal", &Bool),
        field("Attachable", &Bool),
        field("Ingress", &Bool),
        field("ConfigFrom", &CONFIG_REFERENCE),
        field("ConfigOnly", &Bool),
        field("Containers", &Map(&ENDPOINT_RESOURCE)),
        field("Options", &Map(&Str)),
        field("Labels", &Map(&Str)),
        field("Peers", &Slice(&Any)),
        field("Services", &Map(&Any)),
    ],
);
const VOLUME_INSPECT: Type = Struct(
    "volume.Volume",
    &[
        field("ClusterVolume", &Ptr(&Any)),
        field("CreatedAt", &Str),
        field("Driver", &Str),
        field("Labels", &Map(&Str)),
        field("Mountpoint", &Str),
        field("Name", &Str),
        field("Options", &Map(&Str)),
        field("Scope", &Str),
        field("Status", &Map(&Any)),
        field("UsageData", &Ptr(&Any)),
    ],
);
const ACTOR: Type = Struct("events.Actor", &[field("ID", &Str), field("Attributes", &Map(&Str))]);
const EVENT_MESSAGE: Type = Struct(
    "events.Message",
    &[
        Field::keyed("Status", "status", &Str),
        Field::keyed("ID", "id", &Str),
        Field::keyed("From", "from", &Str),
        field("Type", &Str),
        field("Action", &Str),
        field("Actor", &ACTOR),
        Field::keyed("Scope", "scope", &Str),
        Field::keyed("Time", "time", &Int),
        Field::keyed("TimeNano", "timeNano", &Int),
    ],
);
const PLATFORM_NAME: Type = Struct("struct { Name string }", &[field("Name", &Str)]);
const VERSION_CLIENT: Type = Struct(
    "system.clientVersion",
    &[
        field("Platform", &PLATFORM_NAME),
        field("Version", &Str),
        Field::keyed("APIVersion", "ApiVersion", &Str),
        field("DefaultAPIVersion", &Str),
        field("GitCommit", &Str),
        field("GoVersion", &Str),
        field("Os", &Str),
        field("Arch", &Str),
        field("BuildTime", &Str),
        field("Context", &Str),
    ],
);
const VERSION_COMPONENT: Type = Struct(
    "types.ComponentVersion",
    &[field("Name", &Str), field("Version", &Str), field("Details", &Map(&Str))],
);
const VERSION_SERVER: Type = Struct(
    "types.Version",
    &[
        field("Platform", &PLATFORM_NAME),
        field("Components", &Slice(&VERSION_COMPONENT)),
        field("Version", &Str),
        Field::keyed("APIVersion", "ApiVersion", &Str),
        field("MinAPIVersion", &Str),
        field("GitCommit", &Str),
        field("GoVersion", &Str),
        field("Os", &Str),
        field("Arch", &Str),
        field("KernelVersion", &Str),
        field("Experimental", &Bool),
        field("BuildTime", &Str),
    ],
);
const VERSION_INFO: Type =
    Struct("system.versionInfo", &[field("Client", &VERSION_CLIENT), field("Server", &Ptr(&VERSION_SERVER))]);
const PLUGINS_INFO: Type = Struct(
    "system.PluginsInfo",
    &[
        field("Volume", &Slice(&Str)),
        field("Network", &Slice(&Str)),
        field("Authorization", &Slice(&Str)),
        field("Log", &Slice(&Str)),
    ],
);
const COMMIT: Type = Struct("system.Commit", &[field("ID", &Str)]);
const SWARM_INFO: Type = Struct(
    "swarm.Info",
    &[
        field("NodeID", &Str),
        field("NodeAddr", &Str),
        field("LocalNodeState", &Str),
        field("ControlAvailable", &Bool),
        field("Error", &Str),
        field("RemoteManagers", &Slice(&Any)),
        field("Nodes", &Int),
        field("Managers", &Int),
        field("Cluster", &Ptr(&Any)),
        field("Warnings", &Slice(&Str)),
    ],
);
const CLIENT_INFO: Type = Struct(
    "system.clientInfo",
    &[
        field("Debug", &Bool),
        field("Version", &Str),
        field("Context", &Str),
        field("Plugins", &Slice(&Any)),
        field("Warnings", &Slice(&Str)),
    ],
);
const DAEMON_INFO: Type = Struct(
    "system.dockerInfo",
    &[
        field("ID", &Str),
        field("Containers", &Int),
        field("ContainersRunning", &Int),
        field("ContainersPaused", &Int),
        field("ContainersStopped", &Int),
        field("Images", &Int),
        field("Driver", &Str),
        field("DriverStatus", &Slice(&Slice(&Str))),
        field("SystemStatus", &Slice(&Slice(&Str))),
        field("Plugins", &PLUGINS_INFO),
        field("MemoryLimit", &Bool),
        field("SwapLimit", &Bool),
        Field::keyed("CPUCfsPeriod", "CpuCfsPeriod", &Bool),
        Field::keyed("CPUCfsQuota", "CpuCfsQuota", &Bool),
        field("CPUShares", &Bool),
        field("CPUSet", &Bool),
        field("PidsLimit", &Bool),
        field("IPv4Forwarding", &Bool),
        field("Debug", &Bool),
        field("NFd", &Int),
        field("OomKillDisable", &Bool),
        field("NGoroutines", &Int),
        field("SystemTime", &Str),
        field("LoggingDriver", &Str),
        field("CgroupDriver", &Str),
        field("CgroupVersion", &Str),
        field("NEventsListener", &Int),
        field("KernelVersion", &Str),
        field("OperatingSystem", &Str),
        field("OSVersion", &Str),
        field("OSType", &Str),
        field("Architecture", &Str),
        field("IndexServerAddress", &Str),
        field("RegistryConfig", &Ptr(&Any)),
        field("NCPU", &Int),
        field("MemTotal", &Int),
        field("GenericResources", &Slice(&Any)),
        field("DockerRootDir", &Str),
        Field::keyed("HTTPProxy", "HttpProxy", &Str),
        Field::keyed("HTTPSProxy", "HttpsProxy", &Str),
        field("NoProxy", &Str),
        field("Name", &Str),
        field("Labels", &Slice(&Str)),
        field("ExperimentalBuild", &Bool),
        field("ServerVersion", &Str),
        field("Runtimes", &Map(&Any)),
        field("DefaultRuntime", &Str),
        field("Swarm", &SWARM_INFO),
        field("LiveRestoreEnabled", &Bool),
        field("Isolation", &Str),
        field("InitBinary", &Str),
        field("ContainerdCommit", &COMMIT),
        field("RuncCommit", &COMMIT),
        field("InitCommit", &COMMIT),
        field("SecurityOptions", &Slice(&Str)),
        field("ProductLicense", &Str),
        field("DefaultAddressPools", &Slice(&Any)),
        field("FirewallBackend", &Ptr(&Any)),
        field("CDISpecDirs", &Slice(&Str)),
        field("DiscoveredDevices", &Slice(&Any)),
        field("Containerd", &Ptr(&Any)),
        field("Warnings", &Slice(&Str)),
        field("ServerErrors", &Slice(&Str)),
        field("ClientInfo", &Ptr(&CLIENT_INFO)),
        field("ClientErrors", &Slice(&Str)),
    ],
);

pub static CONTAINER: Type = CONTAINER_INSPECT;
pub static IMAGE: Type = IMAGE_INSPECT;
pub static NETWORK: Type = NETWORK_INSPECT;
pub static VOLUME: Type = VOLUME_INSPECT;
pub static EVENT: Type = EVENT_MESSAGE;
pub static VERSION: Type = VERSION_INFO;
pub static INFO: Type = DAEMON_INFO;

/*
 * The kernel's own price of one container, and nothing else: the least that any engine pays.
 *
 *   floor NETWORK COUNT CGROUP LOWER SCRATCH
 *
 * NETWORK is bridge, none or host. COUNT containers are run one after another: control groups below CGROUP (all
 * v1 hierarchies, or the one of v2), a clone into mount, UTS, IPC, PID and network namespaces, an overlay over
 * LOWER (a folder with a static busybox) with its upper layer below SCRATCH, the usual mounts, masks and
 * read-only paths, for `bridge` a veth pair into a bridge with address and route, fewer capabilities, pivot_root,
 * exec of `true`, wait, and the removal of what does not go by itself. For each container one line is printed:
 * microseconds from start to exit, and to the end of the removal.
 *
 * Runs as root, in a network namespace that may be littered: it makes the bridge `floor0`.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MUST(call)                                                                      \
    ({                                                                                  \
        __typeof__(call) result_ = (call);                                              \
        if (result_ == (__typeof__(call))-1) {                                          \
            fprintf(stderr, "floor: line %d: %s: %s\n", __LINE__, #call, strerror(errno)); \
            _exit(1);                                                                   \
        }                                                                               \
        result_;                                                                        \
    })

/* Paths here are short by construction: the harness chooses them. */
#pragma GCC diagnostic ignored "-Wformat-truncation"

enum { GROUPS_MAX = 16 };

static char groups[GROUPS_MAX][256]; /* folders of the parent control group */
static int group_count;
static const char *lower, *scratch;

static double now_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

/* --- netlink: one message at a time, acknowledged --- */

struct message {
    struct nlmsghdr head;
    char rest[1024];
};

static void *extend(struct message *message, size_t size)
{
    char *at = (char *)message + NLMSG_ALIGN(message->head.nlmsg_len);
    memset(at, 0, size);
    message->head.nlmsg_len = NLMSG_ALIGN(message->head.nlmsg_len) + size;
    return at;
}

static struct rtattr *attribute(struct message *message, int type, const void *data, size_t size)
{
    struct rtattr *attribute = extend(message, RTA_LENGTH(size));
    attribute->rta_type = type;
    attribute->rta_len = RTA_LENGTH(size);
    if (size)
        memcpy(RTA_DATA(attribute), data, size);
    return attribute;
}

static void number(struct message *message, int type, uint32_t value) { attribute(message, type, &value, 4); }

static void text(struct message *message, int type, const char *value)
{
    attribute(message, type, value, strlen(value) + 1);
}

static void close_nest(struct message *message, struct rtattr *nest)
{
    nest->rta_len = (char *)message + message->head.nlmsg_len - (char *)nest;
}

static void begin(struct message *message, int type, int flags)
{
    message->head = (struct nlmsghdr){
        .nlmsg_len = NLMSG_HDRLEN, .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags};
}

static int netlink(void) { return MUST(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)); }

static int talk(int socket, struct message *message)
{
    char answer[2048];
    MUST(send(socket, message, message->head.nlmsg_len, 0));
    MUST(recv(socket, answer, sizeof answer, 0));
    struct nlmsghdr *head = (struct nlmsghdr *)answer;
    return head->nlmsg_type == NLMSG_ERROR ? ((struct nlmsgerr *)NLMSG_DATA(head))->error : 0;
}

static void must_talk(int socket, struct message *message, const char *what)
{
    int error = talk(socket, message);
    if (error) {
        fprintf(stderr, "floor: %s: %s\n", what, strerror(-error));
        _exit(1);
    }
}

static void link_up(int socket, int index)
{
    struct message message;
    begin(&message, RTM_NEWLINK, 0);
    struct ifinfomsg *info = extend(&message, sizeof *info);
    info->ifi_index = index;
    info->ifi_flags = info->ifi_change = IFF_UP;
    must_talk(socket, &message, "link up");
}

static void add_address(int socket, int index, const char *address)
{
    struct message message;
    struct in_addr ip;
    inet_pton(AF_INET, address, &ip);
    begin(&message, RTM_NEWADDR, NLM_F_CREATE);
    struct ifaddrmsg *info = extend(&message, sizeof *info);
    *info = (struct ifaddrmsg){.ifa_family = AF_INET, .ifa_prefixlen = 16, .ifa_index = index};
    attribute(&message, IFA_LOCAL, &ip, 4);
    attribute(&message, IFA_ADDRESS, &ip, 4);
    must_talk(socket, &message, "address");
}

static void add_default_route(int socket, const char *gateway)
{
    struct message message;
    struct in_addr ip;
    inet_pton(AF_INET, gateway, &ip);
    begin(&message, RTM_NEWROUTE, NLM_F_CREATE);
    struct rtmsg *route = extend(&message, sizeof *route);
    *route = (struct rtmsg){.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_BOOT,
                            .rtm_scope = RT_SCOPE_UNIVERSE, .rtm_type = RTN_UNICAST};
    attribute(&message, RTA_GATEWAY, &ip, 4);
    must_talk(socket, &message, "route");
}

static int make_bridge(int socket)
{
    struct message message;
    begin(&message, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    extend(&message, sizeof(struct ifinfomsg));
    text(&message, IFLA_IFNAME, "floor0");
    struct rtattr *info = attribute(&message, IFLA_LINKINFO, NULL, 0);
    text(&message, IFLA_INFO_KIND, "bridge");
    close_nest(&message, info);
    int fresh = talk(socket, &message) == 0;
    int index = if_nametoindex("floor0");
    if (!index) {
        fprintf(stderr, "floor: no bridge\n");
        exit(1);
    }
    if (fresh)
        add_address(socket, index, "10.231.0.1");
    link_up(socket, index);
    return index;
}

/* One message: a pair, one end on the bridge and up, the other as eth0 in the child's namespace. */
static void make_veth(int socket, int bridge, int number_of, pid_t child)
{
    struct message message;
    char name[IF_NAMESIZE];
    snprintf(name, sizeof name, "floor%u-%d", (unsigned)getpid() % 10000, number_of % 1000);
    begin(&message, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    struct ifinfomsg *info = extend(&message, sizeof *info);
    info->ifi_flags = info->ifi_change = IFF_UP;
    text(&message, IFLA_IFNAME, name);
    number(&message, IFLA_MASTER, bridge);
    struct rtattr *link = attribute(&message, IFLA_LINKINFO, NULL, 0);
    text(&message, IFLA_INFO_KIND, "veth");
    struct rtattr *data = attribute(&message, IFLA_INFO_DATA, NULL, 0);
    struct rtattr *peer = attribute(&message, VETH_INFO_PEER, NULL, 0);
    extend(&message, sizeof(struct ifinfomsg));
    text(&message, IFLA_IFNAME, "eth0");
    number(&message, IFLA_NET_NS_PID, child);
    close_nest(&message, peer);
    close_nest(&message, data);
    close_nest(&message, link);
    must_talk(socket, &message, "veth");
}

/* --- the container's side --- */

static void mask_file(const char *path)
{
    if (mount("/dev/null", path, NULL, MS_BIND, NULL) && errno != ENOENT && errno != ENOTDIR)
        MUST(-1);
}

static void mask_folder(const char *path)
{
    if (mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=0k") && errno != ENOENT)
        MUST(-1);
}

static void read_only(const char *path)
{
    if (mount(path, path, NULL, MS_BIND | MS_REC, NULL)) {
        if (errno != ENOENT)
            MUST(-1);
        return;
    }
    MUST(mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
}

static void make_devices(void)
{
    static const struct {
        const char *name;
        int major, minor;
    } devices[] = {{"dev/null", 1, 3}, {"dev/zero", 1, 5}, {"dev/full", 1, 7},
                   {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0}};
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        MUST(mknod(devices[i].name, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)));
    MUST(symlink("/proc/self/fd", "dev/fd"));
    MUST(symlink("/proc/self/fd/0", "dev/stdin"));
    MUST(symlink("/proc/self/fd/1", "dev/stdout"));
    MUST(symlink("/proc/self/fd/2", "dev/stderr"));
    MUST(symlink("pts/ptmx", "dev/ptmx"));
}

static void make_cgroup_mounts(const char *name)
{
    char from[512], to[300];
    if (group_count == 1) {
        MUST(mount("cgroup", "sys/fs/cgroup", "cgroup2", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
        return;
    }
    MUST(mount("tmpfs", "sys/fs/cgroup", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755"));
    for (int i = 0; i < group_count; i++) {
        snprintf(to, sizeof to, "sys/fs/cgroup/%d", i);
        snprintf(from, sizeof from, "%s/%s", groups[i], name);
        MUST(mkdir(to, 0755));
        MUST(mount(from, to, NULL, MS_BIND, NULL));
        MUST(mount(NULL, to, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    }
    MUST(mount(NULL, "sys/fs/cgroup", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
}

static void make_root(const char *upper, const char *name)
{
    static const char *files[] = {"etc/hosts", "etc/hostname", "etc/resolv.conf"};
    char options[2048], from[512];
    MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, upper, upper);
    snprintf(from, sizeof from, "%s/merged", upper);
    MUST(mount("overlay", from, "overlay", 0, options));
    MUST(chdir(from));
    MUST(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    MUST(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
    MUST(mkdir("dev/pts", 0755) | mkdir("dev/shm", 0755) | mkdir("dev/mqueue", 0755));
    MUST(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"));
    MUST(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k"));
    MUST(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    MUST(mount("sysfs", "sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    make_cgroup_mounts(name);
    make_devices();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        int file = MUST(open(files[i], O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
        close(file);
        snprintf(from, sizeof from, "%s/bound", upper);
        MUST(mount(from, files[i], NULL, MS_BIND, NULL));
    }
    MUST(syscall(SYS_pivot_root, ".", "."));
    MUST(umount2(".", MNT_DETACH));
    MUST(chdir("/"));
}

static void hide_parts(void)
{
    static const char *hidden[] = {"/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                                   "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug"};
    static const char *folders[] = {"/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware",
                                    "/sys/devices/virtual/powercap"};
    static const char *kept[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        read_only(kept[i]);
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++)
        mask_file(hidden[i]);
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        mask_folder(folders[i]);
}

static void drop_capabilities(void)
{
    /* The fourteen that containers keep by default. */
    const uint64_t kept = 1ull << CAP_CHOWN | 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_FSETID | 1ull << CAP_FOWNER |
                          1ull << CAP_MKNOD | 1ull << CAP_NET_RAW | 1ull << CAP_SETGID | 1ull << CAP_SETUID |
                          1ull << CAP_SETFCAP | 1ull << CAP_SETPCAP | 1ull << CAP_NET_BIND_SERVICE |
                          1ull << CAP_SYS_CHROOT | 1ull << CAP_KILL | 1ull << CAP_AUDIT_WRITE;
    for (int capability = 0; capability <= CAP_LAST_CAP; capability++)
        if (!(kept >> capability & 1))
            prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{kept, kept, 0}, {kept >> 32, kept >> 32, 0}};
    MUST(syscall(SYS_capset, &head, data));
}

static void configure_network(int number_of)
{
    char address[32];
    snprintf(address, sizeof address, "10.231.%d.%d", 1 + number_of / 250 % 250, 1 + number_of % 250);
    int socket = netlink();
    int index = MUST((int)if_nametoindex("eth0") ?: -1);
    link_up(socket, 1);
    add_address(socket, index, address);
    link_up(socket, index);
    add_default_route(socket, "10.231.0.1");
    close(socket);
}

static _Noreturn void contained(const char *upper, const char *name, int number_of, int go, int bridged)
{
    char byte;
    make_root(upper, name);
    hide_parts();
    MUST(sethostname(name, strlen(name)));
    MUST(read(go, &byte, 1));
    if (bridged)
        configure_network(number_of);
    drop_capabilities();
    char *arguments[] = {"true", NULL};
    char *environment[] = {"PATH=/bin", NULL};
    MUST(execve("/bin/busybox", arguments, environment));
    _exit(127);
}

/* --- the engine's side --- */

static void write_file(const char *path, const char *value)
{
    int file = MUST(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    MUST(write(file, value, strlen(value)));
    close(file);
}

/* A v1 cpuset takes no process before it has CPUs and memory nodes: the parent's. */
static void inherit_cpuset(const char *parent, const char *child)
{
    static const char *keys[] = {"cpuset.cpus", "cpuset.mems"};
    char path[512], value[256];
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        snprintf(path, sizeof path, "%s/%s", parent, keys[i]);
        int file = MUST(open(path, O_RDONLY | O_CLOEXEC));
        value[MUST(read(file, value, sizeof value - 1))] = 0;
        close(file);
        snprintf(path, sizeof path, "%s/%s", child, keys[i]);
        write_file(path, value);
    }
}

static void make_groups(const char *name)
{
    char path[512];
    for (int i = 0; i < group_count; i++) {
        snprintf(path, sizeof path, "%s/%s", groups[i], name);
        MUST(mkdir(path, 0755));
        if (strstr(path, "/cpuset/"))
            inherit_cpuset(groups[i], path);
    }
}

static void enter_groups(const char *name, pid_t child)
{
    char path[512], value[16];
    snprintf(value, sizeof value, "%d", child);
    for (int i = 0; i < group_count; i++) {
        snprintf(path, sizeof path, "%s/%s/cgroup.procs", groups[i], name);
        write_file(path, value);
    }
}

static void remove_groups(const char *name)
{
    char path[512];
    for (int i = 0; i < group_count; i++) {
        snprintf(path, sizeof path, "%s/%s", groups[i], name);
        while (rmdir(path) && errno == EBUSY)
            sched_yield();
    }
}

static void make_layer(const char *upper)
{
    static const char *parts[] = {"", "/upper", "/work", "/merged"};
    char path[512];
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        snprintf(path, sizeof path, "%s%s", upper, parts[i]);
        MUST(mkdir(path, 0755));
    }
    snprintf(path, sizeof path, "%s/bound", upper);
    write_file(path, "x");
}

static void remove_layer(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    char inner[1024];
    while (folder && (entry = readdir(folder))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
        if (unlink(inner) && errno == EISDIR)
            remove_layer(inner);
    }
    closedir(folder);
    MUST(rmdir(path));
}

static void one(const char *network, int bridge, int socket, int number_of)
{
    char name[64], upper[512];
    int go[2], status, bridged = !strcmp(network, "bridge");
    uint64_t flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID;
    if (strcmp(network, "host"))
        flags |= CLONE_NEWNET;
    if (group_count == 1)
        flags |= CLONE_NEWCGROUP;
    snprintf(name, sizeof name, "floor-%d-%d", getpid(), number_of);
    snprintf(upper, sizeof upper, "%s/%s", scratch, name);

    double start = now_us();
    make_layer(upper);
    make_groups(name);
    MUST(pipe2(go, O_CLOEXEC));
    pid_t child = MUST((pid_t)syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL));
    if (!child)
        contained(upper, name, number_of, go[0], bridged);
    enter_groups(name, child);
    if (bridged)
        make_veth(socket, bridge, number_of, child);
    MUST(write(go[1], "!", 1));
    MUST(waitpid(child, &status, 0));
    double exited = now_us();
    close(go[0]);
    close(go[1]);
    remove_groups(name);
    remove_layer(upper);
    double removed = now_us();
    if (status) {
        fprintf(stderr, "floor: the container ended with status %x\n", status);
        exit(1);
    }
    printf("%.0f %.0f\n", exited - start, removed - start);
}

/* The parent control group in every hierarchy; made here when it is not there. */
static void find_groups(const char *name)
{
    static const char *v1[] = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"};
    char path[512];
    if (!access("/sys/fs/cgroup/cgroup.controllers", F_OK)) {
        snprintf(groups[group_count++], sizeof *groups, "/sys/fs/cgroup/%s", name);
    } else {
        for (size_t i = 0; i < sizeof v1 / sizeof *v1; i++) {
            snprintf(path, sizeof path, "/sys/fs/cgroup/%s/cgroup.procs", v1[i]);
            if (!access(path, F_OK))
                snprintf(groups[group_count++], sizeof *groups, "/sys/fs/cgroup/%s/%s", v1[i], name);
        }
    }
    for (int i = 0; i < group_count; i++)
        if (!mkdir(groups[i], 0755) && strstr(groups[i], "/cpuset/")) {
            snprintf(path, sizeof path, "%.*s", (int)(strrchr(groups[i], '/') - groups[i]), groups[i]);
            inherit_cpuset(path, groups[i]);
        }
}

int main(int count, char **arguments)
{
    if (count != 6) {
        fprintf(stderr, "usage: floor bridge|none|host COUNT CGROUP LOWER SCRATCH\n");
        return 2;
    }
    lower = arguments[4];
    scratch = arguments[5];
    find_groups(arguments[3]);
    int socket = netlink();
    int bridge = strcmp(arguments[1], "bridge") ? 0 : make_bridge(socket);
    for (int i = 0; i < atoi(arguments[2]); i++)
        one(arguments[1], bridge, socket, i);
    return 0;
}

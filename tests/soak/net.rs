//! Hosts as network namespaces on one bridge, so that a cable can be pulled: silence, and no reset. Needs root and
//! iproute2.

use std::process::{Command, Stdio};

#[derive(Debug)]
pub(crate) struct Net {
    prefix: String,
    hosts: usize,
}

fn ip(words: &str) -> bool {
    let status = Command::new("ip").args(words.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

impl Net {
    /// `None` where namespaces cannot be made.
    pub(crate) fn build(hosts: usize) -> Option<Self> {
        let net = Self { prefix: format!("iso{}", std::process::id()), hosts };
        let prefix = &net.prefix;
        // The bridge has a namespace of its own: this machine's routes are not touched.
        let bridge = ip(&format!("netns add {prefix}b"))
            && ip(&format!("-n {prefix}b link add br0 type bridge"))
            && ip(&format!("-n {prefix}b link set br0 up"));
        (bridge && (0..hosts).all(|host| net.plug_in(host))).then_some(net)
    }

    fn plug_in(&self, host: usize) -> bool {
        let (bridge, name) = (format!("{}b", self.prefix), self.name(host));
        ip(&format!("netns add {name}"))
            && ip(&format!("-n {name} link add e0 type veth peer name v{host} netns {bridge}"))
            && ip(&format!("-n {bridge} link set v{host} master br0 up"))
            && ip(&format!("-n {name} link set lo up"))
            && ip(&format!("-n {name} addr add {}/24 dev e0", Self::address(host)))
            && ip(&format!("-n {name} link set e0 up"))
    }

    fn name(&self, host: usize) -> String {
        format!("{}h{host}", self.prefix)
    }

    pub(crate) fn address(host: usize) -> String {
        format!("10.231.0.{}", 11 + host)
    }

    /// The same command in a host.
    pub(crate) fn enter(&self, host: usize, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.name(host)]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside.stdin(Stdio::null());
        inside
    }

    pub(crate) fn cut(&self, host: usize) {
        assert!(ip(&format!("-n {}b link set v{host} down", self.prefix)));
    }

    pub(crate) fn heal(&self, host: usize) {
        assert!(ip(&format!("-n {}b link set v{host} up", self.prefix)));
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for host in 0..self.hosts {
            ip(&format!("netns del {}", self.name(host)));
        }
        ip(&format!("netns del {}b", self.prefix));
    }
}

//! How much memory there is and how much was taken.

/// Bytes in GiB.
pub fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

/// The memory that the plan may use: what was asked for, or for a software adapter what the machine has free (it allocates
/// more than there is without complaint, and the system kills it later).
pub fn budget(requested: Option<u64>, adapter_kind: &str) -> Option<u64> {
    let free = || proc_value("/proc/meminfo", "MemAvailable:"); // Linux
    requested.or_else(|| if adapter_kind == "Cpu" { free().map(|free| free / 10 * 9) } else { None })
}

/// Largest resident set of this process so far (Linux).
pub fn peak_resident() -> Option<u64> {
    proc_value("/proc/self/status", "VmHWM:")
}

fn proc_value(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

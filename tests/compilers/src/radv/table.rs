//! What RADV counted, as a table and in a few lines.

use super::{Driver, Reply};
use crate::pipelines::Need;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Columns of the table with the driver's names for them.
const COLUMNS: [(&str, &str); 9] = [
    ("vgprs", "VGPRs"),
    ("spilled_vgprs", "Spilled VGPRs"),
    ("spilled_sgprs", "Spilled SGPRs"),
    ("scratch_bytes", "Scratch size"),
    ("lds_bytes", "LDS size"),
    ("waves_per_simd", "Subgroups per SIMD"),
    ("instructions", "Instructions"),
    ("latency", "Latency"),
    ("inverse_throughput", "Inverse Throughput"),
];

/// A pipeline of a real session.
pub struct Row {
    /// The pipeline.
    pub key: String,
    /// What it is needed for.
    pub need: Need,
    /// Whether it multiplies cooperative matrices.
    pub matrices: bool,
    /// What the driver counted.
    pub reply: Reply,
}

impl Row {
    fn number(&self, name: &str) -> Option<u64> {
        self.reply.statistics.get(name).copied()
    }

    fn has(&self, name: &str) -> bool {
        self.number(name).is_some_and(|n| n > 0)
    }

    /// Whether vector registers wait in memory.
    pub fn spills(&self) -> bool {
        self.has("Spilled VGPRs")
    }

    /// Whether an array lies in memory because it is reached for by numbers that the compiler does not know.
    pub fn has_array_in_memory(&self) -> bool {
        self.has("Scratch size") && !self.spills()
    }

    /// The shader with the kernel for its problem, and whether a session runs it without being told to.
    fn family(&self) -> String {
        let kernel = self.need.choice.as_ref().map_or("", |(_, kernel)| kernel);
        let default = if self.need.is_default { "default" } else { "candidate" };
        format!("{default} {} `{kernel}`", self.key.split(' ').next().unwrap_or_default())
    }

    /// Kernel, problem and pipeline in one line.
    pub fn name(&self) -> String {
        let choice = self.need.choice.as_ref();
        choice.map_or(self.key.clone(), |(problem, kernel)| format!("{kernel} ({problem}; {})", self.key))
    }
}

/// The pipelines that were compiled.
pub struct Table {
    /// By whom.
    pub driver: Driver,
    /// For which family of cards.
    pub family: String,
    /// In the order of their keys.
    pub rows: Vec<Row>,
}

impl Table {
    /// Family and version of the driver, as a file may be named.
    pub fn name(&self) -> String {
        let version = self.driver.version.replace("Mesa ", "");
        let version = version.split('-').next().unwrap_or_default();
        format!("{}_mesa_{version}", self.family)
    }

    /// As CSV.
    pub fn csv(&self) -> String {
        let mut text = "pipeline,operator,default,problem,kernel".to_string();
        COLUMNS.iter().for_each(|(name, _)| text += &format!(",{name}"));
        text += ",matrix_instructions\n";
        for row in self.rows.iter().filter(|row| row.reply.refused.is_none()) {
            let (problem, kernel) = row.need.choice.clone().unwrap_or_default();
            let default = if row.need.is_default { "yes" } else { "no" };
            // No name has a comma or a quote.
            let _ = write!(text, "{},{},{default},{problem},{kernel}", row.key, row.need.operator);
            for (_, name) in COLUMNS {
                let _ = write!(text, ",{}", row.number(name).map_or(String::new(), |n| n.to_string()));
            }
            let products = row.reply.matrix_products.map_or(String::new(), |n| n.to_string());
            let _ = writeln!(text, ",{products}");
        }
        text
    }

    /// In a few lines.
    pub fn summary(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (what, is_default) in [("by default", true), ("candidates", false)] {
            let of = |r: &&Row| r.need.is_default == is_default && r.reply.refused.is_none();
            let rows: Vec<&Row> = self.rows.iter().filter(of).collect();
            if rows.is_empty() {
                continue;
            }
            let sorted = |name: &str| {
                let mut found: Vec<u64> = rows.iter().filter_map(|r| r.number(name)).collect();
                found.sort_unstable();
                found
            };
            let quantiles = |name: &str| {
                let found = sorted(name);
                let at = |q: usize| found.get((found.len().max(1) - 1) * q / 100).map_or(0, |&n| n);
                format!("{} / {} / {} / {} / {}", at(0), at(10), at(50), at(90), at(100))
            };
            let spills = rows.iter().filter(|r| r.spills()).count();
            let scalar = rows.iter().filter(|r| r.has("Spilled SGPRs")).count();
            let arrays = rows.iter().filter(|r| r.has_array_in_memory()).count();
            lines.push(format!(
                "{what}: {} pipelines, {spills} spill vectors, {scalar} spill scalars, {arrays} hold an array in memory, scratch at most {} bytes",
                rows.len(),
                sorted("Scratch size").last().copied().unwrap_or(0),
            ));
            lines.push(format!(
                "    least / 10 % / median / 90 % / most waves per SIMD: {}",
                quantiles("Subgroups per SIMD")
            ));
            lines.push(format!(
                "    vector registers: {}; instructions: {}",
                quantiles("VGPRs"),
                quantiles("Instructions")
            ));
            let matrix: Vec<&&Row> = rows.iter().filter(|r| r.matrices).collect();
            if !matrix.is_empty() {
                let products: usize = matrix.iter().filter_map(|r| r.reply.matrix_products).sum();
                let without = matrix.iter().filter(|r| r.reply.matrix_products == Some(0)).count();
                lines.push(format!(
                    "    {} with cooperative matrices: {products} matrix instructions, {without} without any",
                    matrix.len()
                ));
            }
        }
        for (what, which) in
            [("spills", Row::spills as fn(&Row) -> bool), ("an array in memory", Row::has_array_in_memory)]
        {
            let mut kernels: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
            for row in self.rows.iter().filter(|r| which(r)) {
                kernels.entry(row.family()).or_default().push(row);
            }
            for (kernel, rows) in kernels {
                let most = |name: &str| rows.iter().filter_map(|r| r.number(name)).max().unwrap_or(0);
                lines.push(format!(
                    "{what}: {kernel}: {} pipelines, at most {} registers, {} bytes",
                    rows.len(),
                    most("Spilled VGPRs"),
                    most("Scratch size")
                ));
            }
        }
        lines
    }

    /// The summary as JSON.
    pub fn json(&self) -> serde_json::Value {
        let names = |which: &dyn Fn(&Row) -> bool, is_default: bool| {
            let rows = self.rows.iter().filter(|r| r.need.is_default == is_default && which(r));
            rows.map(Row::name).collect::<Vec<_>>()
        };
        serde_json::json!({
            "card": self.driver.name,
            "driver": self.driver.version,
            "cooperative matrices": self.driver.matrices,
            "pipelines": self.rows.len(),
            "summary": self.summary(),
            "defaults that spill": names(&Row::spills, true),
            "candidates that spill": names(&Row::spills, false),
            "defaults with an array in memory": names(&Row::has_array_in_memory, true),
            "candidates with an array in memory": names(&Row::has_array_in_memory, false),
        })
    }
}

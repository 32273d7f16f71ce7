//! The WGSL files, embedded by folder. A line `#import NAME` takes in `shaders/shared/NAME.wgsl`; what a kernel unrolls is written
//! in the syntax of Jinja templates (`{% for %}`, `{{ }}`), with defaults for its variables at the top of the file.

use super::Kernel;
use super::recording::Precision;
use include_dir::{Dir, include_dir};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior};
use std::collections::BTreeMap;

static FILES: Dir = include_dir!("$CARGO_MANIFEST_DIR/shaders");

fn text(name: &str) -> &'static str {
    let file = FILES.get_file(format!("{name}.wgsl"));
    file.and_then(|file| file.contents_utf8()).unwrap_or_else(|| panic!("no shader {name}"))
}

/// The element of a feature tensor: a channel group of one voxel. `#import element` brings this line.
fn element(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "alias Feature = vec4<f32>;\n",
        Precision::F16 => "alias Feature = vec4<f16>;\n",
    }
}

/// The source of a kernel's shader with its imports in place. Panics on a name without a file and on a template that does
/// not render: mistakes in the program, which the tests of all operators would meet.
pub fn source(kernel: &Kernel) -> String {
    let mut out = String::new();
    for line in text(kernel.shader).lines() {
        match line.strip_prefix("#import ").map(str::trim) {
            Some("element") => out.push_str(element(kernel.precision)),
            Some(import) => out.push_str(text(&format!("shared/{import}"))),
            None => out.push_str(line),
        }
        out.push('\n');
    }
    if out.contains("{%") {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        templates.set_syntax(syntax.unwrap_or_default());
        let variables: BTreeMap<_, _> = kernel.variables.iter().copied().collect();
        out = templates
            .render_str(&out, variables)
            .unwrap_or_else(|error| panic!("the template {} does not render: {error:#}", kernel.shader));
    }
    if let Some(binding) = kernel.part {
        out = in_parts(&out, binding);
    }
    match kernel.precision {
        Precision::F32 => out,
        Precision::F16 => format!("enable f16;\n{out}"),
    }
}

/// How every shader is told its workgroup, and how many there are.
const WORKGROUP: &str = "@builtin(workgroup_id) workgroup: vec3<u32>";
const WORKGROUPS: &str = "@builtin(num_workgroups) workgroups: vec3<u32>";

/// The shader of a dispatch that runs in parts: a uniform says with which workgroup a part begins, and how many the whole has, where
/// that is known before it runs.
fn in_parts(text: &str, binding: u32) -> String {
    let of_part = [WORKGROUP, WORKGROUPS].map(|told| told.replace(": vec3", "_of_part: vec3"));
    let mut out = format!(
        "struct DispatchPart {{ first: vec3<u32>, whole: vec3<u32> }}\n\
         @group(0) @binding({binding}) var<uniform> dispatch_part: DispatchPart;\n"
    );
    // Directives come first.
    let directives =
        text.lines().take_while(|line| line.starts_with("enable ") || line.trim().is_empty() || line.starts_with("//"));
    let at: usize = directives.map(|line| line.len() + 1).sum();
    out.insert_str(0, &text[..at]);
    for line in text[at..].lines() {
        out.push_str(&line.replace(WORKGROUP, &of_part[0]).replace(WORKGROUPS, &of_part[1]));
        if line.contains(WORKGROUP) {
            out.push_str("\n    let workgroup = workgroup_of_part + dispatch_part.first;");
        }
        if line.contains(WORKGROUPS) {
            out.push_str(
                "\n    let workgroups = select(dispatch_part.whole, workgroups_of_part, dispatch_part.whole.x == 0u);",
            );
        }
        out.push('\n');
    }
    out
}

/// Whether a shader knows its workgroup, without which its dispatch has one.
pub(super) fn knows_its_workgroup(kernel: &Kernel) -> bool {
    text(kernel.shader).contains(WORKGROUP)
}

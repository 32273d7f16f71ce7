//! Every shader is valid WGSL by itself, without a device.

use spark3d::compute::device::recording::{Kernel, Precision};
use spark3d::compute::device::shaders::{names, source};

#[test]
fn naga_accepts_every_shader() {
    let mut failures = Vec::new();
    for (name, precision) in names().into_iter().flat_map(|n| [(n, Precision::F32), (n, Precision::F16)]) {
        let text = source(&Kernel { precision, ..Kernel::new(name) });
        match naga::front::wgsl::parse_str(&text) {
            Err(error) => failures.push(format!("{name} in {precision:?}: {}", error.emit_to_string(&text))),
            Ok(module) => {
                let mut validator =
                    naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
                if let Err(error) = validator.validate(&module) {
                    failures.push(format!("{name} in {precision:?}: {}", error.emit_to_string(&text)));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_shader_file_is_embedded() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let stem = |path: std::path::PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let entries = |path: std::path::PathBuf| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<String> = entries(root)
        .filter(|folder| !folder.ends_with("shared"))
        .flat_map(|folder| entries(folder.clone()).map(move |file| format!("{}/{}", stem(folder.clone()), stem(file))))
        .collect();
    files.sort();
    assert_eq!(names(), files);
}

#[test]
#[should_panic(expected = "no shader conv3d/none")]
fn an_unknown_shader_is_a_mistake_in_the_program() {
    source(&Kernel::new("conv3d/none"));
}

//! Every shader is valid WGSL by itself, without a device.

use spark3d::compute::device::recording::{Kernel, Precision};
use spark3d::compute::device::shaders::{SHADERS, source};

#[test]
fn naga_accepts_every_shader() {
    let mut failures = Vec::new();
    for (name, precision) in SHADERS.iter().flat_map(|(n, _)| [(n, Precision::F32), (n, Precision::F16)]) {
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
    for folder in std::fs::read_dir(root).unwrap() {
        let folder = folder.unwrap();
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap();
            let name = format!(
                "{}/{}",
                folder.file_name().to_string_lossy(),
                file.path().file_stem().unwrap().to_string_lossy()
            );
            let known = name.starts_with("shared/") || SHADERS.iter().any(|(n, _)| *n == name);
            assert!(known, "shaders/{name}.wgsl is not in the list of src/device/shaders.rs");
        }
    }
}

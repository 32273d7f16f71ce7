//! PyTorch checkpoints: real ones are read number for number, what is written comes back, and files that are broken or
//! mean harm are refused with a reason and little memory.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::RngExt;
use safetensors::SafeTensors;
use serde_json::json;
use spark3d::base::random::{Purpose, rng};
use spark3d::formats::npz;
use spark3d::formats::torch::{self, Archive, Entry, Numbers, Value, Weight};
use support::fixture;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

const NNUNET: &str = "nnunet/nnUNetTrainer__nnUNetResEncTestPlans__3d_fullres";

fn nnunet() -> PathBuf {
    fixture(NNUNET).join("fold_0/checkpoint_final.pth")
}

fn error(path: &Path) -> String {
    Archive::open(path).expect_err("it should be refused").to_string()
}

// ---------------------------------------------------------------------------------------------------------------------
// Real files

#[test]
fn a_checkpoint_of_nnunet() {
    let archive = Archive::open(&nnunet()).unwrap();
    let Some(Value::Dict(entries)) = archive.get(&[]) else { panic!() };
    let keys: Vec<_> = entries.iter().map(|(key, value)| (key.clone(), value.kind())).collect();
    let expected = [
        ("network_weights", "a dict"),
        ("optimizer_state", "a dict"),
        ("grad_scaler_state", "None"),
        ("logging", "a dict"),
        ("_best_ema", "None"),
        ("current_epoch", "an int"),
        ("init_args", "a dict"),
        ("trainer_name", "a str"),
        ("inference_allowed_mirroring_axes", "a tuple"),
    ];
    assert_eq!(keys, expected.map(|(key, kind)| (Value::Str(key.into()), kind.to_string())));

    let axes = Value::Tuple([0, 1, 2].map(Value::Int).to_vec());
    assert_eq!(archive.get(&["inference_allowed_mirroring_axes"]), Some(&axes));
    assert_eq!(archive.get(&["trainer_name"]), Some(&Value::Str("nnUNetTrainer".into())));
    assert_eq!(archive.get(&["init_args", "configuration"]), Some(&Value::Str("3d_fullres".into())));
    assert_eq!(archive.get(&["init_args", "no such key"]), None);
    // Logged numbers are numpy's.
    assert!(
        matches!(archive.get(&["logging", "mean_fg_dice"]), Some(Value::List(v)) if matches!(v[0], Value::Float(_)))
    );

    for (key, file) in [("plans", "plans.json"), ("dataset_json", "dataset.json")] {
        let text = fs::read(fixture(NNUNET).join(file)).unwrap();
        let expected: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(archive.get(&["init_args", key]).unwrap().to_json().unwrap(), expected, "{key}");
    }

    let weights = archive.state_dict("network_weights").unwrap();
    assert_eq!(weights[0], ("encoder.stem.convs.0.conv.weight".into(), vec![5, 2, 3, 3, 3]));
    let stem = archive.tensor("network_weights", &weights[0].0).unwrap();
    assert_eq!(stem.data.len(), 270);
    // The first bytes of data/0: e4 a3 85 3c c4 21 0e be.
    assert_eq!(stem.data[..2].iter().map(|v| v.to_bits()).collect::<Vec<_>>(), [0x3c85a3e4, 0xbe0e21c4]);

    let reference = |name: &str| archive.get(&["network_weights"]).unwrap().get(name).unwrap().clone();
    let alias = "encoder.stem.convs.0.all_modules.0.weight";
    assert_eq!(reference(alias), reference("encoder.stem.convs.0.conv.weight"), "aliases share a storage");
    assert_ne!(reference(alias), reference("encoder.stem.convs.0.conv.bias"));
    let missing = archive.tensor("network_weights", "nothing").unwrap_err().to_string();
    assert!(missing.contains("no tensor \"nothing\""), "{missing}");
    assert!(archive.state_dict("init_args").unwrap_err().to_string().contains("not a tensor"));
    assert!(archive.state_dict("current_epoch").unwrap_err().to_string().contains("an int"));
    assert!(archive.state_dict("weights").unwrap_err().to_string().contains("has no \"weights\""));
}

#[test]
fn weights_are_those_that_pytorch_read() {
    let Some(folder) = std::env::var_os("SPARK3D_PARITY").map(PathBuf::from) else {
        return eprintln!("skipped: SPARK3D_PARITY names no folder of reference results");
    };
    let bytes = fs::read(folder.join("D_nnunet/intermediates.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let archive = Archive::open(&nnunet()).unwrap();
    let mut compared = 0;
    for (name, shape) in archive.state_dict("network_weights").unwrap() {
        let Ok(expected) = reference.tensor(&format!("weights/{name}")) else { continue };
        assert_eq!(expected.shape(), shape);
        let expected: Vec<f32> = expected.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        assert_eq!(archive.tensor("network_weights", &name).unwrap().data, expected, "{name}");
        compared += 1;
    }
    let listed = reference.names().iter().filter(|name| name.starts_with("weights/")).count();
    assert!(compared == listed && compared > 50, "{compared} of {listed}");
}

#[test]
fn tensors_of_every_type_and_layout() {
    for file in ["torch/odd.pth", "torch/odd_protocol4.pth"] {
        let archive = Archive::open(&fixture(file)).unwrap();
        let tensor = |name: &str| {
            let tensor = archive.tensor("tensors", name).unwrap();
            (tensor.shape, tensor.data)
        };
        let ramp: Vec<f32> = (0..24).map(|v| v as f32).collect();
        let transposed: Vec<f32> = (0..4).flat_map(|k| (0..6).map(move |ij| (4 * ij + k) as f32)).collect();
        let expected = [
            ("contiguous", vec![2, 3, 4], ramp.clone()),
            ("transposed", vec![4, 2, 3], transposed),
            ("strided", vec![5], vec![1.0, 6.0, 11.0, 16.0, 21.0]),
            ("expanded", vec![2, 3], vec![3.0, 3.0, 3.0, 4.0, 4.0, 4.0]),
            ("view_of_big", vec![2, 2], vec![990.0, 991.0, 992.0, 993.0]),
            ("scalar", vec![], vec![7.5]),
            ("empty", vec![3, 0, 2], vec![]),
            ("parameter", vec![2], vec![0.0, 1.0]),
            ("half", vec![3], vec![1.5, -65504.0, 2f32.powi(-24)]),
            ("bfloat16", vec![3], vec![1.0, -3.140625, f32::from_bits(0x714a0000)]),
            ("int64", vec![2], vec![-(2f32.powi(40)), 3.0]),
            ("int32", vec![2], vec![-5.0, 6.0]),
            ("int16", vec![2], vec![-300.0, 300.0]),
            ("int8", vec![2], vec![-128.0, 127.0]),
            ("uint8", vec![2], vec![0.0, 255.0]),
            ("uint16", vec![2], vec![0.0, 65535.0]),
            ("bool", vec![2], vec![1.0, 0.0]),
        ];
        assert_eq!(archive.state_dict("tensors").unwrap().len(), expected.len());
        for (name, shape, data) in expected {
            assert_eq!(tensor(name), (shape, data), "{file}: {name}");
        }
        assert_eq!(archive.tensor("linear", "weight").unwrap().data, [0.25, 0.25]);
        let complex = archive.tensor("complex", "z").unwrap_err().to_string();
        assert!(complex.contains("ComplexFloatStorage"), "{complex}");
    }
}

#[test]
fn values_of_every_kind() {
    let text = |text: &str| Value::Str(text.into());
    let ints = |ints: &[i64]| ints.iter().copied().map(Value::Int).collect::<Vec<_>>();
    for file in ["torch/odd.pth", "torch/odd_protocol4.pth"] {
        let archive = Archive::open(&fixture(file)).unwrap();
        let value = |name: &str| archive.get(&["values", name]).unwrap().clone();
        assert_eq!(value("none"), Value::None);
        assert_eq!(value("bools"), Value::List(vec![Value::Bool(true), Value::Bool(false)]));
        let expected = [0, -1, 255, 256, 65536, -(1 << 31), 1 << 31, 1 << 40, i64::MIN, i64::MAX];
        assert_eq!(value("ints"), Value::List(ints(&expected)));
        assert!(matches!(value("huge"), Value::Opaque(_)));
        assert_eq!(value("float"), Value::Float(-0.1));
        assert_eq!(value("text"), text("höhe \u{2003}\u{1f9e0}"));
        assert_eq!(value("bytes"), Value::Bytes(vec![0, 255]));
        assert_eq!(value("nested").to_json(), Some(json!([[1, [2, []]], [[], {}], {"1": {"a": ["b"]}}])));
        let numpy = [Value::Float(0.1), Value::Float(0.5), Value::Float(2.0), Value::Int(-3), Value::Int(200)];
        let numpy = [&numpy[..], &[Value::Bool(true), Value::Int(7)]].concat();
        assert_eq!(value("numpy"), Value::List(numpy));
        assert_eq!(value("big_endian"), Value::Float(1.5));
        assert_eq!(value("device"), Value::List(vec![text("cpu"), text("cuda:1")]));
        assert_eq!(value("set"), Value::List(ints(&[5])));
        assert_eq!(value("size"), Value::Tuple(ints(&[4, 5])));
        assert_eq!(value("default"), Value::Dict(vec![(text("k"), Value::Int(1))]));
        assert_eq!(value("dtype"), Value::Opaque("torch.float16".into()));
        assert!(matches!(value("array"), Value::Opaque(class) if class.contains("_reconstruct")));
        assert!(matches!(value("path"), Value::Opaque(class) if class.contains("PurePosixPath")));
    }
}

#[test]
fn other_formats_are_named() {
    let legacy = error(&fixture("torch/legacy.pth"));
    assert!(legacy.contains("before 1.6") && legacy.contains("torch.save"), "{legacy}");
    let script = error(&fixture("torch/torchscript.pt"));
    assert!(script.contains("TorchScript") && script.contains("state_dict"), "{script}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.pth");
    for (bytes, cause) in [
        (b"".to_vec(), "is empty"),
        (b"not a checkpoint".to_vec(), "no zip archive"),
        (zipped(&[("a/readme", b"x")], CompressionMethod::Stored), "without a PyTorch checkpoint"),
        (b"PK\x03\x04 and no more".to_vec(), "cannot be read"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = error(&path);
        assert!(error.contains(cause) && error.contains("file.pth"), "{error}");
    }
    assert!(error(&dir.path().join("missing.pth")).contains("missing.pth"));
}

// ---------------------------------------------------------------------------------------------------------------------
// Broken and hostile files

fn zipped(members: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        zip.start_file(name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A checkpoint of a pickle and storages.
fn checkpoint(pickle: &[u8], storages: &[(&str, &[u8])], method: CompressionMethod) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile.pth");
    let mut members = vec![("a/data.pkl", pickle), ("a/byteorder", b"little")];
    members.extend_from_slice(storages);
    fs::write(&path, zipped(&members, method)).unwrap();
    (dir, path)
}

fn opened(pickle: &[u8]) -> Result<Archive, String> {
    let (_dir, path) = checkpoint(pickle, &[], CompressionMethod::Stored);
    Archive::open(&path).map_err(|e| e.to_string())
}

/// `{"w": {"x": tensor}}` of floats in storage 0, with the given sizes as opcodes.
fn one_tensor(elements: &[u8], offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    [
        b"\x80\x02}U\x01w}U\x01xctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpu",
        elements,
        b"tQ",
        offset,
        b"(",
        shape,
        b"t(",
        strides,
        b"t\x89NtRss.",
    ]
    .concat()
}

#[test]
fn nothing_in_a_pickle_is_executed() {
    let dir = tempfile::tempdir().unwrap();
    let proof = dir.path().join("proof");
    let command = format!("touch {}", proof.display());
    let text = [&[b'X'][..], &(command.len() as u32).to_le_bytes(), command.as_bytes()].concat();
    let calls: [Vec<u8>; 3] = [
        [b"\x80\x02cos\nsystem\n", &text[..], b"\x85R."].concat(),
        [b"\x80\x04\x8c\x05posix\x8c\x06system\x93", &text[..], b"\x85R."].concat(),
        [b"\x80\x02cbuiltins\ngetattr\ncsys\nmodules\nU\x02os\x86R", &text[..], b"\x85R."].concat(),
    ];
    for pickle in &calls {
        let archive = opened(pickle).unwrap();
        assert!(matches!(archive.get(&[]), Some(Value::Opaque(_))), "{:?}", archive.get(&[]));
        let error = archive.state_dict("network_weights").unwrap_err().to_string();
        assert!(error.contains("not interpreted"), "{error}");
    }
    assert!(!proof.exists());

    // As one of the values: the others are of use. What would be set or appended on it is dropped.
    let pickle = b"\x80\x02}(U\x01acos\nsystem\nU\x02ls\x85R}U\x01kK\x01sbK\x07aU\x01bK\x02u.";
    let archive = opened(pickle).unwrap();
    assert_eq!(archive.get(&["a"]), Some(&Value::Opaque("os.system".into())));
    assert_eq!(archive.get(&["b"]), Some(&Value::Int(2)));
    // As a tensor.
    let weights = opened(b"\x80\x02}U\x01w}U\x01xcos\nsystem\n)Rss.").unwrap();
    let error = weights.tensor("w", "x").unwrap_err().to_string();
    assert!(error.contains("os.system"), "{error}");
}

#[test]
fn impossible_tensors_are_refused() {
    let numbers = [0u8; 16];
    let open = |pickle: &[u8]| {
        let (_dir, path) = checkpoint(pickle, &[("a/data/0", &numbers)], CompressionMethod::Stored);
        Archive::open(&path).and_then(|archive| archive.tensor("w", "x")).map_err(|e| e.to_string())
    };
    assert_eq!(open(&one_tensor(b"K\x04", b"K\x00", b"K\x02K\x02", b"K\x01K\x02")).unwrap().data, [0.0; 4]);
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    for (pickle, cause) in [
        (one_tensor(b"K\x05", b"K\x00", b"K\x02", b"K\x01"), "16 bytes, its dictionary says 20"),
        (one_tensor(huge, b"K\x00", b"K\x02", b"K\x01"), "larger than any memory"),
        (one_tensor(b"K\x04", b"K\x01", b"K\x04", b"K\x01"), "beyond its storage"),
        (one_tensor(b"K\x04", huge, b"K\x01", b"K\x01"), "beyond its storage"),
        (one_tensor(b"K\x04", b"K\x00", b"K\x02", huge), "beyond its storage"),
        (one_tensor(b"K\x04", b"K\x00", &[&huge[..], huge].concat(), b"K\x00K\x00"), "beyond its storage"),
        (one_tensor(b"K\x04", b"K\x00", b"K\x02K\x02", b"K\x01"), "beyond its storage"),
        (one_tensor(b"K\x04", b"J\xff\xff\xff\xff", b"K\x01", b"K\x01"), "where a size should"),
        (one_tensor(b"K\x04", b"K\x00", b"K\x04J\xff\xff\xff\xff", b"K\x01K\x01"), "where a size should"),
        // 2^40 times the same value.
        (one_tensor(b"K\x04", b"K\x00", b"\x8a\x06\x00\x00\x00\x00\x00\x01", b"K\x00"), "repeats 1 values"),
        (one_tensor(b"K\x04", b"K\x00", &b"K\x01".repeat(65), &b"K\x01".repeat(65)), "65 axes"),
    ] {
        let error = open(&pickle).unwrap_err();
        assert!(error.contains(cause), "expected {cause:?}: {error}");
    }

    let pickle = one_tensor(b"K\x04", b"K\x00", b"K\x04", b"K\x01");
    let (_dir, path) = checkpoint(&pickle, &[], CompressionMethod::Stored);
    assert!(error(&path).contains("lacks a/data/0"));
    let (_dir, path) = checkpoint(&pickle, &[("a/data/0", &numbers)], CompressionMethod::Deflated);
    assert_eq!(Archive::open(&path).unwrap().tensor("w", "x").unwrap().data, [0.0; 4], "compressed by somebody");
    // 16 MiB of zeros in a few kilobytes.
    let zeros = vec![0; 1 << 24];
    let pickle = one_tensor(b"J\x00\x00\x40\x00", b"K\x00", b"J\x00\x00\x40\x00", b"K\x01");
    let (_dir, path) = checkpoint(&pickle, &[("a/data/0", &zeros)], CompressionMethod::Deflated);
    assert!(error(&path).contains("claims to hold"), "{}", error(&path));
    let (_dir, path) = checkpoint(&vec![b'N'; (1 << 26) + 1], &[], CompressionMethod::Deflated);
    assert!(error(&path).contains("more than"), "{}", error(&path));
}

#[test]
fn broken_pickles_are_refused() {
    // Every level holds the level below twice.
    let laughs = [b"\x80\x02N".to_vec(), b"q\x00h\x00\x86".repeat(60), b".".to_vec()].concat();
    // One list of many elements, copied again and again.
    let copies = [
        b"\x80\x02](".to_vec(),
        b"N".repeat(20_000),
        b"eq\x00cbuiltins\nset\nq\x010".to_vec(),
        b"h\x01h\x00\x85R0".repeat(20_000),
        b"N.".to_vec(),
    ]
    .concat();
    for (pickle, cause) in [
        (b"".to_vec(), "ends early"),
        (b"\x80\x02".to_vec(), "ends early"),
        (b"\x80\x02}".to_vec(), "ends early"),
        (b"\x80\x02.".to_vec(), "empty stack"),
        (b"\x80\x02X\xff\xff\xff\xffabc.".to_vec(), "ends early"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.".to_vec(), "ends early"),
        (b"\x80\x02h\x07.".to_vec(), "never kept"),
        (b"\x80\x02t.".to_vec(), "mark"),
        (b"\x80\x02}(K\x01u.".to_vec(), "key without a value"),
        (b"\x80\x02K\x01K\x02a.".to_vec(), "something else than a list"),
        (b"\x80\x02K\x01Q.".to_vec(), "where a tuple should"),
        (b"\x80\x02cos\nsystem".to_vec(), "without an end"),
        (b"\x80\x09N.".to_vec(), "protocol 9"),
        (b"(dp0\n.".to_vec(), "opcode 0x70"),
        (b"\x80\x02]q\x00h\x00a.".to_vec(), "contain themselves"),
        ([b"\x80\x02".to_vec(), b"]".repeat(500), b"a".repeat(499), b".".to_vec()].concat(), "too deeply"),
        (laughs, "far more objects"),
        (copies, "far more objects"),
    ] {
        let error = opened(&pickle).expect_err(cause);
        assert!(error.contains(cause) && error.contains("hostile.pth"), "expected {cause:?}: {error}");
    }
    let (_dir, path) = {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big.pth");
        let members: [(&str, &[u8]); 2] = [("a/data.pkl", b"\x80\x02N."), ("a/byteorder", b"big")];
        fs::write(&path, zipped(&members, CompressionMethod::Stored)).unwrap();
        (dir, path)
    };
    assert!(error(&path).contains("\"big\"-endian"), "{}", error(&path));
}

#[test]
fn truncated_and_flipped_files_are_refused() {
    let whole = fs::read(nnunet()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.pth");
    for length in [4, 100, 60_000, whole.len() / 2, whole.len() - 30, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = error(&path);
        assert!(error.contains("cut.pth") && error.contains("copy or download"), "{length}: {error}");
    }
    // A bit of the first tensor.
    let mut flipped = whole.clone();
    let first = flipped.windows(4).position(|w| w == [0xe4, 0xa3, 0x85, 0x3c]).unwrap();
    flipped[first] ^= 1;
    fs::write(&path, flipped).unwrap();
    let archive = Archive::open(&path).unwrap();
    let error = archive.tensor("network_weights", "encoder.stem.convs.0.conv.weight").unwrap_err().to_string();
    assert!(error.contains("cannot be read"), "{error}");
}

// ---------------------------------------------------------------------------------------------------------------------
// Random damage

/// Counts what the thread has allocated, to see the highest amount at any time.
struct Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: passes every call on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        NOW.set(NOW.get() + layout.size() as isize);
        PEAK.set(PEAK.get().max(NOW.get()));
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.set(NOW.get() - layout.size() as isize);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The result of `work` and the most bytes that it held at once.
fn measured<T>(work: impl FnOnce() -> T) -> (T, isize) {
    let before = NOW.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get() - before)
}

/// Changes, removes or repeats a few bytes.
fn damage(bytes: &mut Vec<u8>, seed: u64) {
    let mut random = rng(seed, Purpose::Test, 0, 0);
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..bytes.len());
        let end = (at + random.random_range(1..40)).min(bytes.len());
        match random.random_range(0..4) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => drop(bytes.drain(at..end)),
            _ => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

#[test]
fn random_damage_neither_panics_nor_takes_much_memory() {
    let mut zip = ZipArchive::new(fs::File::open(nnunet()).unwrap()).unwrap();
    let mut members = BTreeMap::new();
    for k in 0..zip.len() {
        let mut member = zip.by_index(k).unwrap();
        let mut content = Vec::new();
        member.read_to_end(&mut content).unwrap();
        members.insert(member.name().unwrap().into_owned(), content);
    }
    let pickle = members["checkpoint_final/data.pkl"].clone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.pth");
    let (mut refused, mut read, mut most) = (0, 0, 0);
    for seed in 0..400 {
        let mut damaged = pickle.clone();
        damage(&mut damaged, seed);
        members.insert("checkpoint_final/data.pkl".into(), damaged);
        let list: Vec<_> = members.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
        fs::write(&path, zipped(&list, CompressionMethod::Stored)).unwrap();
        let (tensors, held) = measured(|| {
            let archive = Archive::open(&path).ok()?;
            let names = archive.state_dict("network_weights").unwrap_or_default();
            Some(names.iter().filter(|(name, _)| archive.tensor("network_weights", name).is_ok()).count())
        });
        refused += usize::from(tensors.is_none());
        read += tensors.unwrap_or(0);
        most = most.max(held);
    }
    assert!(refused > 50 && read > 50, "{refused} refused, {read} tensors read");
    assert!(most < 16 << 20, "{most} bytes");
}

#[test]
fn memory_is_bounded_by_the_size_of_the_pickle() {
    // A megabyte of the opcodes that are cheapest to write and dearest to keep, after something to repeat.
    let patterns: [(&[u8], &[u8]); 9] = [
        (b"", b"N"),
        (b"", b"("),
        (b"", b"}"),
        (b"", b"]("),
        (b"N", b"2"),
        (b"N", b"\x94"),
        (b"N", b"\x85"),
        (
            b"](NNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNeq\x00cbuiltins\nset\nq\x01",
            b"h\x01h\x00\x85R",
        ),
        (b"ctorch\nSize\nq\x00", b"h\x00)\x85R"),
    ];
    for (begin, again) in patterns {
        let repeated = again.repeat((1 << 20) / again.len());
        // Once the machine alone, once with everything in a list that becomes the result.
        for (open, close) in [(&b"\x80\x04"[..], &b"N."[..]), (b"\x80\x04](", b"e.")] {
            let pickle = [open, begin, &repeated, close].concat();
            let (dir, path) = checkpoint(&pickle, &[], CompressionMethod::Stored);
            let (_, held) = measured(|| Archive::open(&path).map(drop));
            assert!(held < 160 << 20, "{held} bytes for {:?}", String::from_utf8_lossy(again));
            drop(dir);
        }
    }
}

#[test]
fn random_damage_to_the_archive_does_not_panic() {
    let whole = fs::read(nnunet()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.pth");
    // The central directory is at the end.
    let directory = whole.len() - 16_000;
    for seed in 0..200 {
        let mut end = whole[directory..].to_vec();
        damage(&mut end, seed);
        fs::write(&path, [&whole[..directory], &end].concat()).unwrap();
        let ((), held) = measured(|| {
            if let Ok(archive) = Archive::open(&path) {
                for (name, _) in archive.state_dict("network_weights").unwrap_or_default() {
                    let _ = archive.tensor("network_weights", &name);
                }
            }
        });
        assert!(held < 16 << 20, "{held} bytes");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Written files

/// Everything that may be written; one weight has the storage of another.
fn write_checkpoint(path: &Path, kernel: &[f32]) {
    let json = json!({"n": [0, 255, 256, -1, 1i64 << 40, -0.5, null, true], "text": "é"});
    let odd = Value::List(vec![
        Value::Bytes(vec![0, 200]),
        Value::Dict(vec![(Value::Int(3), Value::Tuple(vec![]))]),
        Value::Int(i64::MIN),
        Value::Float(f64::INFINITY),
    ]);
    let weights = vec![
        Weight { name: "all.0.weight", shape: &[2, 27], numbers: Numbers::SameAs("conv.weight") },
        Weight { name: "conv.weight", shape: &[2, 1, 3, 3, 3], numbers: Numbers::Own(kernel) },
        Weight { name: "conv.bias", shape: &[2], numbers: Numbers::Own(&[1.0, f32::MIN_POSITIVE]) },
        Weight { name: "empty", shape: &[0, 3], numbers: Numbers::Own(&[]) },
        Weight { name: "scalar", shape: &[], numbers: Numbers::Own(&[-2.5]) },
    ];
    let entries = [
        ("network_weights", Entry::StateDict(weights)),
        ("init_args", Entry::Value(Value::from_json(&json))),
        ("axes", Entry::Value(Value::Tuple([0, 1, 2].map(Value::Int).to_vec()))),
        ("odd", Entry::Value(odd)),
    ];
    torch::write(path, &entries).unwrap();
}

#[test]
fn what_is_written_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("written.pth");
    let kernel: Vec<f32> = (0..54).map(|v| v as f32 / 7.0).collect();
    write_checkpoint(&path, &kernel);
    let archive = Archive::open(&path).unwrap();
    let json = json!({"n": [0, 255, 256, -1, 1i64 << 40, -0.5, null, true], "text": "é"});
    assert_eq!(archive.get(&["init_args"]).unwrap().to_json(), Some(json));
    assert_eq!(archive.get(&["axes"]), Some(&Value::Tuple([0, 1, 2].map(Value::Int).to_vec())));
    let Some(Value::List(odd)) = archive.get(&["odd"]) else { panic!() };
    assert_eq!(odd[0], Value::Bytes(vec![0, 200]));
    assert_eq!(odd[1].get("3"), Some(&Value::Tuple(vec![])));
    assert_eq!(odd[2..], [Value::Int(i64::MIN), Value::Float(f64::INFINITY)]);
    let names = archive.state_dict("network_weights").unwrap();
    let shapes: Vec<(&str, &[usize])> = names.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    let expected: [(&str, &[usize]); 5] = [
        ("all.0.weight", &[2, 27]),
        ("conv.weight", &[2, 1, 3, 3, 3]),
        ("conv.bias", &[2]),
        ("empty", &[0, 3]),
        ("scalar", &[]),
    ];
    assert_eq!(shapes, expected);
    let data = |name: &str| archive.tensor("network_weights", name).unwrap().data;
    assert_eq!((data("conv.weight"), data("all.0.weight")), (kernel.clone(), kernel.clone()));
    assert_eq!(data("conv.bias"), [1.0, f32::MIN_POSITIVE]);
    assert_eq!((data("empty"), data("scalar")), (vec![], vec![-2.5]));

    // Members lie as they are, aligned; the bytes depend on nothing but the entries.
    let mut zip = ZipArchive::new(fs::File::open(&path).unwrap()).unwrap();
    assert_eq!(zip.len(), 7, "an alias has no storage of its own");
    for k in 0..zip.len() {
        let member = zip.by_index(k).unwrap();
        assert_eq!((member.compression(), member.data_start().unwrap() % 64), (CompressionMethod::Stored, 0));
    }
    let again = dir.path().join("other name.pth");
    write_checkpoint(&again, &kernel);
    assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap());
}

#[test]
fn what_cannot_be_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("refused.pth");
    let own = |name, shape| Weight { name, shape, numbers: Numbers::Own(&[1.0, 2.0]) };
    let same = |name, shape, owner| Weight { name, shape, numbers: Numbers::SameAs(owner) };
    for (entry, cause) in [
        (Entry::StateDict(vec![own("a", &[3])]), "2 values for shape [3]"),
        (Entry::StateDict(vec![own("a", &[2]), own("a", &[2])]), "two tensors are named"),
        (Entry::StateDict(vec![own("a", &[2]), same("a", &[2], "a")]), "two tensors are named"),
        (Entry::StateDict(vec![own("a", &[2]), same("b", &[2], "c")]), "shares the missing \"c\""),
        (Entry::StateDict(vec![own("a", &[2]), same("b", &[4], "a")]), "2 values for shape [4]"),
        (Entry::Value(Value::List(vec![Value::Opaque("os.system".into())])), "os.system"),
    ] {
        let error = torch::write(&path, &[("key", entry)]).unwrap_err().to_string();
        assert!(error.contains(cause) && !path.exists(), "{error}");
    }
}

#[test]
fn arrays_for_numpy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("case.npz");
    let values: Vec<f32> = (0..2 * 3 * 70_000).map(|v| (v % 1000) as f32 / 8.0).collect();
    let fill = |npz: &mut npz::NpzWriter| {
        npz.array_f32("probabilities", &[2, 3, 70_000], |put| values.chunks(70_001).try_for_each(put))?;
        npz.array_f32("none", &[0], |_| Ok(()))?;
        npz.array_f32("scalar", &[], |put| put(&[3.0]))
    };
    npz::write(&path, fill).unwrap();
    let mut zip = ZipArchive::new(fs::File::open(&path).unwrap()).unwrap();
    let mut member = |name: &str| {
        let mut content = Vec::new();
        zip.by_name(name).unwrap().read_to_end(&mut content).unwrap();
        content
    };
    let probabilities = member("probabilities.npy");
    let (header, data) = probabilities.split_at(128);
    assert!(
        header.starts_with(
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 70000,), }"
        )
    );
    assert!(header.ends_with(b" \n"));
    assert_eq!(data, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    assert!(member("none.npy").len() == 128 && member("scalar.npy").len() == 132);
    assert!(fs::metadata(&path).unwrap().len() < values.len() as u64, "it is compressed");

    let again = dir.path().join("again.npz");
    npz::write(&again, fill).unwrap();
    assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap());
    let error = npz::write(&again, |npz| npz.array_f32("x", &[2], |put| put(&[1.0]))).unwrap_err().to_string();
    assert!(error.contains("1 values for shape [2]"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap(), "a failure keeps the old file");
}

/// Runs where `SPARK3D_PYTHON` names a Python with PyTorch.
#[test]
fn pytorch_and_numpy_read_what_is_written() {
    let Some(python) = std::env::var_os("SPARK3D_PYTHON") else {
        return eprintln!("skipped: SPARK3D_PYTHON names no Python with PyTorch");
    };
    let dir = tempfile::tempdir().unwrap();
    let kernel: Vec<f32> = (0..54).map(|v| v as f32 / 8.0).collect();
    write_checkpoint(&dir.path().join("written.pth"), &kernel);
    npz::write(&dir.path().join("written.npz"), |npz| {
        npz.array_f32("kernel", &[2, 27], |put| kernel.chunks(5).try_for_each(put))?;
        npz.array_f32("scalar", &[], |put| put(&[3.0]))
    })
    .unwrap();
    let script = r#"
import collections, math, numpy, torch
kernel = torch.arange(54) / 8
for options in [dict(weights_only=True), dict(weights_only=False), dict(weights_only=True, mmap=True)]:
    read = torch.load("written.pth", **options)
    assert type(read) is dict and list(read) == ["network_weights", "init_args", "axes", "odd"], read
    weights = read["network_weights"]
    assert type(weights) is collections.OrderedDict
    assert {k: tuple(v.shape) for k, v in weights.items()} == {"all.0.weight": (2, 27), "conv.weight": (2, 1, 3, 3, 3),
        "conv.bias": (2,), "empty": (0, 3), "scalar": ()}
    assert all(w.dtype == torch.float32 and w.is_contiguous() for w in weights.values())
    assert all(w.data_ptr() % 64 == 0 for w in weights.values()) or "mmap" not in options
    assert weights["all.0.weight"].data_ptr() == weights["conv.weight"].data_ptr() != weights["conv.bias"].data_ptr()
    assert torch.equal(weights["conv.weight"].flatten(), kernel) and weights["scalar"].item() == -2.5
    assert weights["conv.bias"].tolist() == [1, 2.0**-126]
    assert read["init_args"] == {"n": [0, 255, 256, -1, 1 << 40, -0.5, None, True], "text": "é"}
    assert read["axes"] == (0, 1, 2) and type(read["axes"]) is tuple
    assert read["odd"] == [bytes([0, 200]), {3: ()}, -(1 << 63), math.inf]
arrays = numpy.load("written.npz")
assert arrays.files == ["kernel", "scalar"]
assert arrays["kernel"].dtype == numpy.float32 and (arrays["kernel"] == kernel.numpy().reshape(2, 27)).all()
assert arrays["scalar"].shape == () and arrays["scalar"] == 3
"#;
    let run = Command::new(python).args(["-c", script]).current_dir(dir.path()).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

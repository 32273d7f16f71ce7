//! The process that holds the driver: opens RADV without a card and compiles what it is told to. It is a process of its own
//! because a compiler that meets something it does not know ends the process it lives in.

use super::{Driver, Job, Reply, Said};
use ash::{Device, Entry, Instance, khr, vk};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io::{BufRead, Write};

/// Compiles the jobs of standard input, one a line, and says what came of each on standard output. The first line of the output
/// is what the driver says of itself.
///
/// # Errors
/// The driver does not open.
pub fn run() -> Result<(), String> {
    // SAFETY: the loader's own library, and every call below is one that Vulkan allows with these extensions and features.
    let compiler = unsafe { Compiler::open()? };
    say(&Said::Driver(compiler.driver.clone()));
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let job: Job = serde_json::from_str(&line).map_err(|e| e.to_string())?;
        // SAFETY: as above; the words are what naga wrote, or were accepted by the validator.
        let found = unsafe { compiler.compile(&job) };
        say(&Said::Reply(match found {
            Ok((statistics, matrix_products)) => Reply { refused: None, statistics, matrix_products },
            Err(refused) => Reply { refused: Some(refused), statistics: BTreeMap::new(), matrix_products: None },
        }));
    }
    Ok(())
}

fn say(said: &Said) {
    let mut out = std::io::stdout().lock();
    let text = serde_json::to_string(said).unwrap_or_default();
    // Who no longer listens does not need to be told.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

struct Compiler {
    device: Device,
    executables: khr::pipeline_executable_properties::Device,
    driver: Driver,
    _instance: Instance,
    _entry: Entry,
}

/// The extensions beyond Vulkan 1.3 that are asked for where they are there.
const WANTED: [&CStr; 3] =
    [khr::pipeline_executable_properties::NAME, ash::ext::robustness2::NAME, khr::cooperative_matrix::NAME];

impl Compiler {
    unsafe fn open() -> Result<Self, String> {
        let entry = unsafe { Entry::load() }.map_err(|e| format!("no Vulkan loader: {e}"))?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let create = vk::InstanceCreateInfo::default().application_info(&application);
        let instance =
            unsafe { entry.create_instance(&create, None) }.map_err(|e| format!("no Vulkan instance: {e}"))?;
        let devices = unsafe { instance.enumerate_physical_devices() }.map_err(|e| e.to_string())?;
        let mut chosen = None;
        for physical in devices {
            let mut driver = vk::PhysicalDeviceDriverProperties::default();
            let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
            unsafe { instance.get_physical_device_properties2(physical, &mut properties) };
            let name = |text: &[std::ffi::c_char]| {
                // SAFETY: Vulkan ends its names with a zero.
                unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned()
            };
            let device = name(&properties.properties.device_name);
            if driver.driver_id == vk::DriverId::MESA_RADV {
                chosen = Some((physical, device, name(&driver.driver_info)));
                break;
            }
        }
        let (physical, name, version) = chosen.ok_or("the loader knows no RADV, or it does not know the family")?;
        let there = unsafe { instance.enumerate_device_extension_properties(physical) }.map_err(|e| e.to_string())?;
        let has = |wanted: &CStr| there.iter().any(|e| e.extension_name_as_c_str() == Ok(wanted));
        let extensions: Vec<_> = WANTED.into_iter().filter(|name| has(name)).map(CStr::as_ptr).collect();
        let matrices = has(khr::cooperative_matrix::NAME);
        if !has(khr::pipeline_executable_properties::NAME) {
            return Err("the driver tells nothing of its pipelines".into());
        }

        // All that the driver has of what wgpu asks for.
        let mut storage = vk::PhysicalDeviceVulkan11Features::default();
        let mut halves = vk::PhysicalDeviceVulkan12Features::default();
        let mut sizes = vk::PhysicalDeviceVulkan13Features::default();
        let mut robust = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
        let mut tells = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default();
        let mut cooperative = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default();
        let mut features = vk::PhysicalDeviceFeatures2::default()
            .push_next(&mut storage)
            .push_next(&mut halves)
            .push_next(&mut sizes)
            .push_next(&mut tells);
        if has(ash::ext::robustness2::NAME) {
            features = features.push_next(&mut robust);
        }
        if matrices {
            features = features.push_next(&mut cooperative);
        }
        unsafe { instance.get_physical_device_features2(physical, &mut features) };
        let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
        let create = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&extensions)
            .push_next(&mut features);
        let device =
            unsafe { instance.create_device(physical, &create, None) }.map_err(|e| format!("no device: {e}"))?;
        let executables = khr::pipeline_executable_properties::Device::new(&instance, &device);
        let driver = Driver { name, version, matrices };
        Ok(Self { device, executables, driver, _instance: instance, _entry: entry })
    }

    /// Statistics by name, and how many matrix instructions the assembly has.
    unsafe fn compile(&self, job: &Job) -> Result<(BTreeMap<String, u64>, Option<usize>), String> {
        let failed = |e: vk::Result| e.to_string();
        let bytes = std::fs::read(&job.file).map_err(|e| e.to_string())?;
        let words: Vec<u32> = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let module = vk::ShaderModuleCreateInfo::default().code(&words);
        let module = unsafe { self.device.create_shader_module(&module, None) }.map_err(failed)?;
        let binding = |&(binding, is_uniform): &(u32, bool)| {
            let kind = if is_uniform { vk::DescriptorType::UNIFORM_BUFFER } else { vk::DescriptorType::STORAGE_BUFFER };
            vk::DescriptorSetLayoutBinding::default()
                .binding(binding)
                .descriptor_type(kind)
                .descriptor_count(1)
                .stage_flags(vk::ShaderStageFlags::COMPUTE)
        };
        let bindings: Vec<_> = job.bindings.iter().map(binding).collect();
        let set = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        let set = unsafe { self.device.create_descriptor_set_layout(&set, None) }.map_err(failed)?;
        let sets = [set];
        let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
        let layout = unsafe { self.device.create_pipeline_layout(&layout, None) }.map_err(failed)?;
        let entry = CString::new(crate::module::ENTRY).map_err(|e| e.to_string())?;
        let stage = vk::PipelineShaderStageCreateInfo::default()
            // wgpu asks for it wherever shaders have subgroup operations.
            .flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE)
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(&entry);
        let mut flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR;
        if job.matrices {
            flags |= vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
        }
        let create = [vk::ComputePipelineCreateInfo::default().flags(flags).stage(stage).layout(layout)];
        let made = unsafe { self.device.create_compute_pipelines(vk::PipelineCache::null(), &create, None) };
        let pipeline = made.map_err(|(_, e)| failed(e))?[0];
        let executable = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
        let statistics = unsafe { self.executables.get_pipeline_executable_statistics(&executable) }.map_err(failed)?;
        let number = |s: &vk::PipelineExecutableStatisticKHR| {
            let name = s.name_as_c_str().ok()?.to_str().ok()?.to_string();
            // SAFETY: the field of the union that the format names.
            let value = unsafe {
                match s.format {
                    vk::PipelineExecutableStatisticFormatKHR::UINT64 => s.value.u64,
                    vk::PipelineExecutableStatisticFormatKHR::INT64 => u64::try_from(s.value.i64).ok()?,
                    _ => return None,
                }
            };
            Some((name, value))
        };
        let statistics = statistics.iter().filter_map(number).collect();
        let products = if job.matrices { unsafe { self.matrix_products(&executable) } } else { Some(0) };
        unsafe {
            self.device.destroy_pipeline(pipeline, None);
            self.device.destroy_pipeline_layout(layout, None);
            self.device.destroy_descriptor_set_layout(set, None);
            self.device.destroy_shader_module(module, None);
        }
        Ok((statistics, products))
    }

    /// Matrix instructions in the most machine-like text that the driver has of a pipeline.
    unsafe fn matrix_products(&self, executable: &vk::PipelineExecutableInfoKHR<'_>) -> Option<usize> {
        let get = self.executables.fp().get_pipeline_executable_internal_representations_khr;
        let handle = self.device.handle();
        let mut count = 0;
        // Asked three times, as Vulkan wants it: how many, how long, and then for the text.
        unsafe { get(handle, executable, &mut count, std::ptr::null_mut()) }.result().ok()?;
        let mut found = vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
        unsafe { get(handle, executable, &mut count, found.as_mut_ptr()) }.result().ok()?;
        let mut texts: Vec<Vec<u8>> = found.iter().map(|f| vec![0; f.data_size]).collect();
        for (f, text) in found.iter_mut().zip(&mut texts) {
            f.p_data = text.as_mut_ptr().cast();
        }
        unsafe { get(handle, executable, &mut count, found.as_mut_ptr()) }.result().ok()?;
        let of = |wanted: &str| {
            let at =
                found.iter().position(|f| f.name_as_c_str().is_ok_and(|n| n.to_string_lossy().contains(wanted)))?;
            let text = String::from_utf8_lossy(&texts[at]);
            let products = text.lines().filter(|line| line.contains("v_wmma")).count();
            (text.lines().count() > 3).then_some(products)
        };
        of("Assembly").or_else(|| of("ACO"))
    }
}

// Gives shaders to the WebGPU implementation of Chromium. `node check.mjs modules|pipelines LIST`: LIST has one JSON object a
// line with a name, a text and constants. The first line of the output names the browser, one line follows for each shader.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { create, globals } from 'webgpu';

Object.assign(globalThis, globals);
const [mode, list] = process.argv.slice(2);
const version = createRequire(import.meta.url)('webgpu/package.json').version;
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');

// Modules are compiled without a driver; pipelines are made by the Vulkan driver that VK_DRIVER_FILES names.
const gpu = create([mode === 'modules' ? 'backend=null' : 'backend=vulkan']);
const adapter = await gpu.requestAdapter();
if (!adapter) {
    console.error('the browser finds no adapter');
    process.exit(1);
}
const wanted = ['shader-f16', 'subgroups'].filter((feature) => adapter.features.has(feature));
const requiredLimits = {};
for (const limit of ['maxComputeWorkgroupStorageSize', 'maxComputeInvocationsPerWorkgroup', 'maxComputeWorkgroupSizeX']) {
    requiredLimits[limit] = adapter.limits[limit];
}
const device = await adapter.requestDevice({ requiredFeatures: wanted, requiredLimits });
const name = adapter.info.description || adapter.info.device || 'no driver';
say({ tool: `webgpu ${version}, ${name}`, features: wanted });

for (const line of readFileSync(list, 'utf8').split('\n').filter(Boolean)) {
    const { name, text, constants } = JSON.parse(line);
    let refused = null;
    device.pushErrorScope('validation');
    const module = device.createShaderModule({ code: text });
    const { messages } = await module.getCompilationInfo();
    const error = messages.find((message) => message.type === 'error');
    if (error) {
        refused = error.message;
    } else if (mode === 'pipelines') {
        try {
            await device.createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint: 'main', constants } });
        } catch (error) {
            refused = error.message;
        }
    }
    const other = await device.popErrorScope();
    say({ name, refused: refused ?? other?.message ?? null });
}
process.exit(0);

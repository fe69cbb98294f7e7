import { cpu, graphics, osInfo } from 'systeminformation';
import type { SystemInformation } from './system-information.ts';

// A program of its own: see system-information.ts.

const [cpuData, osData, graphicsData] = await Promise.all([cpu(), osInfo(), graphics()]);

const report: SystemInformation = {
  cpu: {
    manufacturer: cpuData.manufacturer,
    brand: cpuData.brand,
    physicalCores: cpuData.physicalCores,
    cores: cpuData.cores,
  },
  os: { platform: osData.platform, distro: osData.distro, release: osData.release, kernel: osData.kernel },
  graphics: graphicsData.controllers.map((card) => ({
    vendor: card.vendor,
    model: card.model,
    vramMib: card.vram ?? 0,
  })),
};

process.stdout.write(JSON.stringify(report));

import { defineConfig } from 'drizzle-kit';

export default defineConfig({
  dialect: 'postgresql',
  schema: ['./src/db/schema.ts', './src/db/workflow-tables.ts', './src/db/schedule-tables.ts'],
  out: './src/db/migrations',
});

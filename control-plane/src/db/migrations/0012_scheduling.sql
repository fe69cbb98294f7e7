DROP INDEX "execution_queue_order";--> statement-breakpoint
ALTER TABLE "agents" ADD COLUMN "capacity" jsonb;--> statement-breakpoint
ALTER TABLE "execution_queue" ADD COLUMN "shape" text DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE "executions" ADD COLUMN "reservation" jsonb;--> statement-breakpoint
ALTER TABLE "executions" ADD COLUMN "concurrency_key" text;--> statement-breakpoint
ALTER TABLE "tenants" ADD COLUMN "max_active" integer;--> statement-breakpoint
ALTER TABLE "tenants" ADD COLUMN "weight" double precision DEFAULT 1 NOT NULL;--> statement-breakpoint
CREATE INDEX "execution_queue_lanes" ON "execution_queue" USING btree ("tenant_id","task_class","shape","priority" DESC NULLS FIRST,"execution_id");--> statement-breakpoint
CREATE INDEX "executions_limited" ON "executions" USING btree ("tenant_id","concurrency_key") WHERE concurrency_key IS NOT NULL AND agent_id IS NOT NULL AND end_time IS NULL;
DROP INDEX "schedules_by_name";--> statement-breakpoint
ALTER TABLE "schedules" ADD COLUMN "delete_time" timestamp (3) with time zone;--> statement-breakpoint
CREATE INDEX "schedules_deleted" ON "schedules" USING btree ("id") WHERE delete_time IS NOT NULL;--> statement-breakpoint
CREATE UNIQUE INDEX "schedules_by_name" ON "schedules" USING btree ("tenant_id","name") WHERE delete_time IS NULL;
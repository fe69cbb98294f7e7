ALTER TABLE "agents" ADD COLUMN "brake_end_time" timestamp with time zone;--> statement-breakpoint
CREATE INDEX "agents_braked" ON "agents" USING btree ("id") WHERE brake_end_time IS NOT NULL;
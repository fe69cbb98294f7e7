CREATE TABLE "schedule_firings" (
	"tenant_id" uuid NOT NULL,
	"schedule_id" uuid NOT NULL,
	"time" timestamp (3) with time zone NOT NULL,
	"due_time" timestamp (3) with time zone NOT NULL,
	"state" smallint NOT NULL,
	"execution_id" uuid,
	"run_id" uuid,
	"since_time" timestamp (3) with time zone,
	"message" text,
	"create_time" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"start_time" timestamp (3) with time zone,
	"try_time" timestamp (3) with time zone,
	"over" boolean NOT NULL,
	"cancel" boolean DEFAULT false NOT NULL,
	CONSTRAINT "schedule_firings_schedule_id_time_pk" PRIMARY KEY("schedule_id","time")
);
--> statement-breakpoint
CREATE TABLE "schedules" (
	"id" uuid PRIMARY KEY NOT NULL,
	"tenant_id" uuid NOT NULL,
	"name" text NOT NULL,
	"definition" "bytea" NOT NULL,
	"paused" boolean NOT NULL,
	"anchor_time" timestamp (3) with time zone NOT NULL,
	"decided_time" timestamp (3) with time zone NOT NULL,
	"next_due_time" timestamp (3) with time zone,
	"create_time" timestamp (3) with time zone NOT NULL,
	"update_time" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
ALTER TABLE "schedule_firings" ADD CONSTRAINT "schedule_firings_schedule_id_schedules_id_fk" FOREIGN KEY ("schedule_id") REFERENCES "public"."schedules"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "schedule_firings_open" ON "schedule_firings" USING btree ("schedule_id","time") WHERE NOT over;--> statement-breakpoint
CREATE INDEX "schedule_firings_pending" ON "schedule_firings" USING btree ("try_time") WHERE try_time IS NOT NULL;--> statement-breakpoint
CREATE INDEX "schedule_firings_to_cancel" ON "schedule_firings" USING btree ("schedule_id","time") WHERE cancel AND NOT over;--> statement-breakpoint
CREATE INDEX "schedule_firings_queued" ON "schedule_firings" USING btree ("schedule_id","time") WHERE state = 2;--> statement-breakpoint
CREATE INDEX "schedule_firings_kept" ON "schedule_firings" USING btree ("tenant_id","create_time");--> statement-breakpoint
CREATE UNIQUE INDEX "schedules_by_name" ON "schedules" USING btree ("tenant_id","name");--> statement-breakpoint
CREATE INDEX "schedules_due" ON "schedules" USING btree ("next_due_time") WHERE next_due_time IS NOT NULL AND NOT paused;
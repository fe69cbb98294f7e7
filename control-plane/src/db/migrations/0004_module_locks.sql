CREATE TABLE "module_locks" (
	"tenant_id" uuid NOT NULL,
	"module_id" uuid NOT NULL,
	"platform" text NOT NULL,
	"lock" text NOT NULL,
	"create_time" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "module_locks_module_id_platform_pk" PRIMARY KEY("module_id","platform")
);
--> statement-breakpoint
ALTER TABLE "module_locks" ADD CONSTRAINT "module_locks_tenant_id_tenants_id_fk" FOREIGN KEY ("tenant_id") REFERENCES "public"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "module_locks" ADD CONSTRAINT "module_locks_module_id_modules_id_fk" FOREIGN KEY ("module_id") REFERENCES "public"."modules"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
-- What was decided before holds for every platform, but for conda, whose packages say for which they are.
INSERT INTO "module_locks" ("tenant_id", "module_id", "platform", "lock")
SELECT "tenant_id", "id",
	CASE "environment" WHEN 'conda' THEN coalesce(substring("lock" from '/(linux-[a-z0-9]+)/'), '') ELSE '' END, "lock"
FROM "modules" WHERE "lock" IS NOT NULL;--> statement-breakpoint
ALTER TABLE "modules" DROP COLUMN "lock";